//! Draws the plots of a run as SVG: rate and processor time of each receiver, one plot for each
//! axis of variation. The same figures always give the same bytes.

use crate::run::{Measured, Run};
use crate::spread::Spread;
use crate::turn::Turn;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

/// One plot: its file, title, label of the x axis, and the shapes with their tick labels.
struct Axis {
    file: &'static str,
    title: &'static str,
    label: &'static str,
    shapes: &'static [(&'static str, &'static str)],
}

const AXES: [Axis; 3] = [
    Axis {
        file: "records-groups.svg",
        title: "Groups: one connection, 960-record packets, 256 KiB writes, one core",
        label: "distinct groups (A, E)",
        shapes: &[
            ("bulk", "125"),
            ("groups-10000", "10,000"),
            ("groups-100000", "100,000"),
            ("groups-1000000", "1,000,000"),
        ],
    },
    Axis {
        file: "records-connections.svg",
        title: "Connections: 125 groups each, 960-record packets, 256 KiB writes, one core",
        label: "connections at once",
        shapes: &[("bulk", "1"), ("connections-10", "10"), ("connections-100", "100")],
    },
    Axis {
        file: "records-writes.svg",
        title: "Packets and writes of the sender: 125 groups, one core",
        label: "records a packet / bytes a write",
        shapes: &[
            ("bulk", "960 / 256 KiB"),
            ("small-packets", "4 / 256 KiB"),
            ("field", "4 / 1072 B"),
            ("field-10", "4 / 1072 B, 10 conn."),
        ],
    },
];

/// The receivers in order, with colours that also differ in brightness.
const RECEIVERS: [(&str, RGBColor); 3] = [
    ("drain", RGBColor(160, 174, 192)),
    ("ingest", RGBColor(200, 85, 20)),
    ("blocking", RGBColor(44, 62, 100)),
];

const SIZE: (u32, u32) = (1080, 460);
const FONT: &str = "sans-serif";
/// Share of the width that a group of bars takes.
const BARS_WIDTH: f64 = 0.75;

/// Draws every plot for which at least one shape was run.
///
/// # Errors
/// If a file cannot be written.
pub fn draw_all(run: &Run, directory: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(directory)?;
    for axis in &AXES {
        let measured: Vec<(&str, &Measured)> = axis.measured(run).collect();
        if measured.is_empty() {
            continue;
        }
        let path = directory.join(axis.file);
        draw(axis, &measured, &path).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

impl Axis {
    fn measured<'run>(
        &self,
        run: &'run Run,
    ) -> impl Iterator<Item = (&'static str, &'run Measured)> {
        self.shapes.iter().filter_map(|&(name, place)| {
            let measured = run.shapes.iter().find(|measured| measured.shape.name == name)?;
            Some((place, measured))
        })
    }
}

fn draw(axis: &Axis, measured: &[(&str, &Measured)], path: &Path) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    // An explicit white background, for pages with a dark theme.
    root.fill(&WHITE)?;
    let root = root.titled(axis.title, (FONT, 18).into_font().color(&BLACK))?;
    let (left, right) = root.split_horizontally(50.percent_width());
    let rate = |turn: &Turn| turn.rate() / 1e6;
    panel(&left, axis, measured, "million records a second", &rate)?;
    panel(&right, axis, measured, "CPU of the receiver, ns a record", &Turn::cpu_ns)?;
    root.present()?;
    Ok(())
}

type Area<'path> = DrawingArea<SVGBackend<'path>, Shift>;

fn panel(
    area: &Area<'_>,
    axis: &Axis,
    measured: &[(&str, &Measured)],
    label: &str,
    figure: &dyn Fn(&Turn) -> f64,
) -> Result<(), Box<dyn Error>> {
    let spread = |measured: &Measured, receiver| {
        measured.figures(receiver, figure).map(|figures| Spread::of(&figures))
    };
    let spreads = measured.iter().flat_map(|(_, m)| RECEIVERS.map(|(name, _)| spread(m, name)));
    let top = spreads.flatten().map(|spread| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(52)
        .y_label_area_size(62)
        // Room for the legend above the highest bar.
        .build_cartesian_2d(0.0..measured.len() as f64, 0.0..top * 1.25)?;
    let place = |x: &f64| {
        let middle = (x.fract() - 0.5).abs() < 1e-6;
        let place = measured.get(*x as usize).filter(|_| middle);
        place.map_or(String::new(), |(place, _)| (*place).to_owned())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(215, 215, 215))
        // Twice as many ticks as shapes, so that there is one in the middle of each.
        .x_labels(2 * measured.len() + 1)
        .x_label_formatter(&place)
        .y_label_formatter(&|y| format!("{y}"))
        .x_desc(axis.label)
        .y_desc(label)
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .draw()?;
    let width = BARS_WIDTH / RECEIVERS.len() as f64;
    for (which, (name, color)) in RECEIVERS.into_iter().enumerate() {
        let bars = measured.iter().enumerate().filter_map(|(place, (_, measured))| {
            let left = place as f64 + (1.0 - BARS_WIDTH) / 2.0 + which as f64 * width;
            Some((left, spread(measured, name)?))
        });
        let bars: Vec<(f64, Spread)> = bars.collect();
        let boxes = bars.iter().map(|&(left, spread)| {
            let corners = [(left, 0.0), (left + width * 0.92, spread.median)];
            Rectangle::new(corners, color.filled())
        });
        chart
            .draw_series(boxes)?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 6), (x + 14, y + 6)], color.filled()));
        // From the minimum to the maximum of the rounds.
        chart.draw_series(bars.iter().flat_map(|&(left, Spread { min, max, .. })| {
            let (middle, end) = (left + width * 0.46, width * 0.2);
            let across = |y| vec![(middle - end, y), (middle + end, y)];
            [across(min), across(max), vec![(middle, min), (middle, max)]]
                .map(|line| PathElement::new(line, BLACK))
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(RGBColor(180, 180, 180))
        .label_font((FONT, 13))
        .draw()?;
    Ok(())
}
