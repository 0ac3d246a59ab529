//! The formats of trace files, told by their names.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};

use super::TraceBuilder;

/// The traces' streams were written with a window this large, above what a decoder allows unasked.
const WINDOW_LOG_MAX: u32 = 27;

/// What a CSV's columns mean, by name or by number from 0, and whether sizes count.
#[derive(Clone, Debug)]
pub struct Columns {
    pub key: String,
    pub size: Option<String>,
    pub in_bytes: bool,
}

/// An open trace file.
pub struct Format<'a> {
    kind: Kind,
    name: String,
    source: Box<dyn BufRead>,
    columns: &'a Columns,
}

enum Kind {
    /// `u64` keys, little endian.
    K8,
    /// As `K8`, with a `u32` of bytes after each.
    K8S4,
    Csv,
    /// A key a line, whatever its text.
    Lines,
}

impl<'a> Format<'a> {
    pub fn of(path: &Path, columns: &'a Columns) -> Result<Format<'a>> {
        let file_name = path.file_name().and_then(|name| name.to_str()).context("it has no name")?;
        let (plain_name, is_packed) = match file_name.strip_suffix(".zst") {
            Some(plain_name) => (plain_name, true),
            None => (file_name, false),
        };
        let (name, extension) = plain_name.rsplit_once('.').unwrap_or((plain_name, ""));
        let kind = match extension {
            "k8" => Kind::K8,
            "k8s4" => Kind::K8S4,
            "csv" => Kind::Csv,
            _ => Kind::Lines,
        };
        let has_sizes = matches!(kind, Kind::K8S4) || (matches!(kind, Kind::Csv) && columns.size.is_some());
        ensure!(has_sizes || !columns.in_bytes, "its requests have no sizes");
        let file = File::open(path)?;
        let source: Box<dyn BufRead> = if is_packed {
            let mut decoder = zstd::Decoder::new(file)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Box::new(BufReader::new(decoder))
        } else {
            Box::new(BufReader::new(file))
        };
        Ok(Format { kind, name: name.to_owned(), source, columns })
    }

    pub fn name(&self) -> String {
        self.name.clone()
    }

    pub fn read(self, into: &mut TraceBuilder) -> Result<()> {
        match self.kind {
            Kind::K8 => read_records::<8>(self.source, into),
            Kind::K8S4 => read_records::<12>(self.source, into),
            Kind::Csv => read_csv(self.source, self.columns, into),
            Kind::Lines => read_lines(self.source, into),
        }
    }
}

fn read_records<const BYTES: usize>(mut source: impl Read, into: &mut TraceBuilder) -> Result<()> {
    let mut record = [0; BYTES];
    while !into.is_full() {
        let filled = fill(&mut source, &mut record)?;
        if filled == 0 {
            return Ok(());
        }
        ensure!(filled == BYTES, "it ends within a record");
        let (key, size) = record.split_first_chunk::<8>().expect("a record begins with its key");
        let bytes = size.first_chunk().map_or(1, |&size| u32::from_le_bytes(size));
        into.push_number(u64::from_le_bytes(*key), bytes);
    }
    Ok(())
}

/// Reads until `record` is full or the source ends; how many bytes that were.
fn fill(source: &mut impl Read, record: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < record.len() {
        match source.read(&mut record[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

fn read_csv(source: impl Read, columns: &Columns, into: &mut TraceBuilder) -> Result<()> {
    let mut reader = csv::Reader::from_reader(source);
    let headers = reader.headers()?.clone();
    let column = |wanted: &str| {
        let named = headers.iter().position(|header| header == wanted);
        let numbered = || wanted.parse().ok().filter(|&index| index < headers.len());
        named.or_else(numbered).with_context(|| format!("it has no column {wanted}"))
    };
    let key = column(&columns.key)?;
    let size = columns.size.as_deref().map(column).transpose()?;
    let mut row = csv::StringRecord::new();
    while !into.is_full() && reader.read_record(&mut row)? {
        let Some(key) = row.get(key) else { bail!("a row without a key") };
        let bytes = match size.and_then(|size| row.get(size)) {
            Some(size) => size.trim().parse().with_context(|| format!("a size of {size:?}"))?,
            None => 1,
        };
        into.push_text(key, bytes);
    }
    Ok(())
}

fn read_lines(mut source: impl BufRead, into: &mut TraceBuilder) -> Result<()> {
    let mut line = String::new();
    while !into.is_full() {
        line.clear();
        if source.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let key = line.trim_end_matches(['\n', '\r']);
        if !key.is_empty() {
            into.push_text(key, 1);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Trace;
    use super::*;

    fn read(file_name: &str, bytes: &[u8], in_bytes: bool) -> Result<Trace> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file_name);
        fs::write(&path, bytes).unwrap();
        let columns = Columns { key: "id".into(), size: Some("size".into()), in_bytes };
        Trace::read(&path, &columns, usize::MAX)
    }

    fn numbers(trace: &Trace) -> Vec<u32> {
        trace.requests().map(|request| request.number).collect()
    }

    #[test]
    fn every_format_yields_the_same_requests() {
        let keys: Vec<u8> = [7_u64, 9, 7].iter().flat_map(|key| key.to_le_bytes()).collect();
        let packed = zstd::encode_all(&keys[..], 1).unwrap();
        let files: [(&str, &[u8]); 4] = [
            ("t.k8", &keys),
            ("t.k8.zst", &packed),
            ("t.csv", b"at,id,size\n1,seven,70\n2,nine,90\n3,seven,71\n"),
            ("t.txt", b"seven\nnine\r\n\nseven\n"),
        ];
        for (file_name, bytes) in files {
            let trace = read(file_name, bytes, false).unwrap();
            assert_eq!((trace.name.as_str(), numbers(&trace)), ("t", vec![0, 1, 0]), "{file_name}");
            assert_eq!((trace.distinct(), trace.footprint()), (2, 2), "{file_name}");
        }
    }

    #[test]
    fn sizes_count_where_they_are_asked_for() {
        let trace = read("t.csv", b"id,size\na,70\nb,90\na,71\n", true).unwrap();
        let weights: Vec<_> = trace.requests().map(|request| request.weight).collect();
        assert_eq!((weights, trace.footprint()), (vec![70, 90, 71], 160));
        assert!(read("t.txt", b"a\n", true).is_err());
    }

    #[test]
    fn a_broken_file_is_an_error() {
        assert!(read("t.k8", &[1, 2, 3], false).is_err());
        assert!(read("t.csv", b"key\na\n", false).is_err());
    }
}
