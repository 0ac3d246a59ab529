//! Hands the compiler's version to the report.

use std::{env, process::Command};

fn main() {
    let rustc = env::var("RUSTC").expect("cargo sets it for build scripts");
    let output = Command::new(rustc).arg("--version").output().expect("cargo has just run it");
    println!("cargo::rustc-env=RUSTC_VERSION={}", String::from_utf8_lossy(&output.stdout).trim());
    println!("cargo::rerun-if-changed=build.rs");
}
