//! The public interface as text, so that a change of it is seen, reviewed and meant.
//!
//! `tests/public_api.txt` has one line for each public item. `UPDATE_PUBLIC_API=1` writes it anew.
//! Every `pub` in the sources is listed, since the lint `unreachable_pub` sees to it that what is
//! `pub` can be reached. What macros generate is not seen, and `src/io` is left out: it is public for
//! tests alone.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use proc_macro2::Span;
use syn::{
    Attribute, Fields, File, ImplItem, Item, ItemEnum, ItemImpl, ItemStruct, ItemTrait, TraitItem,
    Visibility, spanned::Spanned,
};

#[test]
fn the_public_api_is_as_recorded() {
    let snapshot = root().join("tests/public_api.txt");
    let found = public_api();
    if env::var_os("UPDATE_PUBLIC_API").is_some() {
        fs::write(&snapshot, &found).unwrap();
    }
    let recorded = fs::read_to_string(&snapshot).unwrap_or_default();
    if recorded != found {
        let gone = recorded.lines().filter(|line| !found.contains(line)).map(|line| format!("- {line}"));
        let new = found.lines().filter(|line| !recorded.contains(line)).map(|line| format!("+ {line}"));
        let changes: Vec<String> = gone.chain(new).collect();
        panic!("the public API has changed; if that is meant, UPDATE_PUBLIC_API=1:\n{}", changes.join("\n"));
    }
}

/// The test lists what it is meant to list.
#[test]
fn items_are_found() {
    let text = "pub struct S<T> { /// doc\n pub a: T, b: u8 }
        impl<T> S<T> where T: Copy { pub fn f(&self,  x: u8) -> u8 { x } fn g() {} }
        impl Drop for S<u8> { fn drop(&mut self) {} }
        #[derive(Debug)] #[non_exhaustive] pub enum E { A, B { x: u8 }, C(u8) }
        pub(crate) struct Hidden; pub const N: u64 = 7; #[cfg(test)] mod tests { pub fn t() {} }";
    let mut lines = Vec::new();
    list(&syn::parse_str::<File>(text).unwrap().items, &mut lines);
    let expected = [
        "pub struct S<T>",
        "    pub S::a: T",
        "impl<T> S<T> where T: Copy",
        "    pub fn S::f(&self, x: u8) -> u8",
        "impl Drop for S<u8>",
        "#[derive(Debug)] #[non_exhaustive] pub enum E",
        "    E::A",
        "    E::B { x: u8 }",
        "    E::C(u8)",
        "pub const N: u64",
    ];
    assert_eq!(lines, expected);
}

fn public_api() -> String {
    let mut lines = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let mut found = Vec::new();
        list(&syn::parse_file(&text).unwrap().items, &mut found);
        // An impl that has nothing public, and is none of a trait, says nothing.
        let names_nothing = |at: usize| found.get(at + 1).is_none_or(|next: &String| !next.starts_with(' '));
        let is_bare =
            |at: usize| found[at].starts_with("impl") && !found[at].contains(" for ") && names_nothing(at);
        let kept: Vec<&String> = (0..found.len()).filter(|at| !is_bare(*at)).map(|at| &found[at]).collect();
        if kept.is_empty() {
            continue;
        }
        lines.push(format!("\n# {}", path.strip_prefix(root()).unwrap().display()));
        lines.extend(kept.into_iter().cloned());
    }
    lines.join("\n").trim_start().to_owned() + "\n"
}

fn list(items: &[Item], lines: &mut Vec<String>) {
    let types = public_types(items);
    for item in items {
        match item {
            Item::Struct(item) if is_public(&item.vis) => list_struct(item, lines),
            Item::Enum(item) if is_public(&item.vis) => list_enum(item, lines),
            Item::Trait(item) if is_public(&item.vis) => list_trait(item, lines),
            Item::Impl(item) => list_impl(item, &types, lines),
            Item::Fn(item) if is_public(&item.vis) => {
                lines.push(format!("{}pub {}", attributes(&item.attrs), source(item.sig.span())));
            }
            Item::Const(item) if is_public(&item.vis) => {
                lines.push(format!("pub const {}: {}", item.ident, source(item.ty.span())));
            }
            Item::Type(item) if is_public(&item.vis) => lines.push(source(item.span())),
            Item::Use(item) if is_public(&item.vis) => {
                lines.push(format!("{}pub use {}", attributes(&item.attrs), source(item.tree.span())));
            }
            Item::Mod(item) if is_public(&item.vis) => {
                lines.push(format!("{}pub mod {}", attributes(&item.attrs), item.ident));
                item.content.iter().for_each(|(_, items)| list(items, lines));
            }
            Item::Macro(item) if item.attrs.iter().any(|attr| attr.path().is_ident("macro_export")) => {
                lines.extend(
                    item.ident.iter().map(|name| format!("{}macro {name}!", attributes(&item.attrs))),
                );
            }
            _ => {}
        }
    }
}

fn list_struct(item: &ItemStruct, lines: &mut Vec<String>) {
    let name = &item.ident;
    lines.push(format!("{}pub struct {name}{}", attributes(&item.attrs), source(item.generics.span())));
    for (number, field) in item.fields.iter().enumerate().filter(|(_, field)| is_public(&field.vis)) {
        let field_name = field.ident.as_ref().map_or(number.to_string(), ToString::to_string);
        lines.push(format!("    pub {name}::{field_name}: {}", source(field.ty.span())));
    }
}

fn list_enum(item: &ItemEnum, lines: &mut Vec<String>) {
    let name = &item.ident;
    lines.push(format!("{}pub enum {name}{}", attributes(&item.attrs), source(item.generics.span())));
    for variant in &item.variants {
        let field = |field: &syn::Field| match &field.ident {
            Some(name) => format!("{name}: {}", source(field.ty.span())),
            None => source(field.ty.span()),
        };
        let fields = variant.fields.iter().map(field).collect::<Vec<_>>().join(", ");
        lines.push(match &variant.fields {
            Fields::Unit => format!("    {name}::{}", variant.ident),
            Fields::Named(_) => format!("    {name}::{} {{ {fields} }}", variant.ident),
            Fields::Unnamed(_) => format!("    {name}::{}({fields})", variant.ident),
        });
    }
}

fn list_trait(item: &ItemTrait, lines: &mut Vec<String>) {
    let name = &item.ident;
    let bounds = if item.supertraits.is_empty() {
        String::new()
    } else {
        format!(": {}", source(item.supertraits.span()))
    };
    lines.push(format!(
        "{}pub trait {name}{}{bounds}",
        attributes(&item.attrs),
        source(item.generics.span())
    ));
    for part in &item.items {
        match part {
            TraitItem::Fn(part) => {
                let provided = if part.default.is_some() { " { .. }" } else { "" };
                lines.push(format!("    {name}: {}{provided}", source(part.sig.span())));
            }
            TraitItem::Const(part) => {
                lines.push(format!("    {name}: const {}: {}", part.ident, source(part.ty.span())));
            }
            TraitItem::Type(part) => lines.push(format!("    {name}: {}", source(part.span()))),
            _ => {}
        }
    }
}

/// The public functions of a public type, and that it has a trait.
fn list_impl(item: &ItemImpl, types: &[String], lines: &mut Vec<String>) {
    let text = source(item.span());
    let head = text.split_once(" {").map_or(text.as_str(), |(head, _)| head);
    let head = &head[head.find("impl").unwrap_or(0)..];
    let name = source(item.self_ty.span());
    let name = name.split('<').next().unwrap_or_default();
    if item.trait_.is_some() {
        if types.iter().any(|public| public == name) {
            lines.push(head.to_owned());
        }
        return;
    }
    lines.push(head.to_owned());
    for part in &item.items {
        match part {
            ImplItem::Fn(part) if is_public(&part.vis) => {
                let signature = source(part.sig.span());
                let (before, after) = signature.split_once("fn ").expect("a function says so");
                lines.push(format!("    {}pub {before}fn {name}::{after}", attributes(&part.attrs)));
            }
            ImplItem::Const(part) if is_public(&part.vis) => {
                lines.push(format!("    pub const {name}::{}: {}", part.ident, source(part.ty.span())));
            }
            _ => {}
        }
    }
}

fn public_types(items: &[Item]) -> Vec<String> {
    let name = |item: &Item| match item {
        Item::Struct(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        Item::Enum(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        _ => None,
    };
    items.iter().filter_map(name).collect()
}

/// The attributes that a user can tell apart.
fn attributes(attributes: &[Attribute]) -> String {
    let told = ["cfg", "derive", "non_exhaustive", "must_use"];
    let is_told = |attribute: &&Attribute| {
        told.iter().any(|name| attribute.path().is_ident(name))
            || source(attribute.span()) == "#[doc(hidden)]"
    };
    attributes.iter().filter(is_told).map(|attribute| source(attribute.span()) + " ").collect()
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The text of a piece of source, on one line and without comments.
fn source(span: Span) -> String {
    let text = span.source_text().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let line = lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    line.replace("( ", "(").replace(", )", ")").replace(",)", ")")
}

/// The source files, sorted.
fn sources() -> Vec<PathBuf> {
    let (mut found, mut dirs) = (Vec::new(), vec![root().join("src")]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.extend((!path.ends_with("src/io")).then_some(path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
