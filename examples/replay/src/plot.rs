//! Miss ratio over size, as an SVG: its text is drawn by whoever shows it, so no font is needed here.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use plotters::prelude::*;

use crate::{
    contestant::Contestant,
    report::{Report, Row},
};

const PIXELS: (u32, u32) = (960, 600);

/// Draws a line for each cache.
pub fn draw(report: &Report, path: &Path) -> Result<()> {
    ensure!(!report.rows.is_empty(), "there is nothing to draw");
    let mut svg = String::new();
    draw_into(report, &mut svg).map_err(|error| anyhow!("cannot draw: {error}"))?;
    std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
}

fn draw_into(report: &Report, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, PIXELS).into_drawing_area();
    area.fill(&WHITE)?;
    let sizes = || report.rows.iter().map(|row| row.size as f64);
    let (smallest, largest) = (sizes().fold(f64::MAX, f64::min), sizes().fold(0.0, f64::max));
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{}: miss ratio over size", report.trace), ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d((smallest * 0.9..largest * 1.1).log_scale(), 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_desc(report.unit)
        .y_desc("miss ratio")
        .x_label_formatter(&|size| format!("{size:.0}"))
        .draw()?;
    for (index, cache) in caches(report).into_iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let points: Vec<(f64, f64)> =
            rows_of(report, cache).map(|row| (row.size as f64, row.outcome.miss_ratio())).collect();
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(3))?
            .label(cache.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE.mix(0.8)).draw()?;
    area.present()?;
    Ok(())
}

/// In order of their first row.
fn caches(report: &Report) -> Vec<Contestant> {
    let mut caches = Vec::new();
    for row in &report.rows {
        if !caches.contains(&row.cache) {
            caches.push(row.cache);
        }
    }
    caches
}

fn rows_of(report: &Report, cache: Contestant) -> impl Iterator<Item = &Row> {
    report.rows.iter().filter(move |row| row.cache == cache)
}
