//! The bench in one picture: a line for each fault, a dot for each trial, on a logarithmic axis of seconds.

use plotters::prelude::*;

use crate::bench::Series;
use crate::error::{Error, Result};
use crate::faults::Fault;
use crate::trial::DIRECT;

const WIDTH: u32 = 960;
/// Of one fault's line.
const LINE: u32 = 34;
/// What is above and below the lines.
const FRAME: u32 = 110;

/// Our agent's colour, a rival's, and the budget's.
const COLOURS: [RGBColor; 3] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(120, 120, 120),
];

/// Draws the outages of the direct client as SVG.
///
/// # Errors
/// [`Error::Unable`] when the library cannot.
pub(crate) fn svg(all: &[Series]) -> Result<String> {
    let mut text = String::new();
    draw(all, &mut text).map_err(|error| Error::Unable(format!("draw the plot: {error}")))?;
    Ok(text)
}

fn draw(all: &[Series], text: &mut String) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut faults: Vec<Fault> = all.iter().map(|series| series.fault).collect();
    faults.dedup();
    // The first is at the top.
    let place = |fault: Fault| {
        let below = faults.iter().rev().position(|other| *other == fault);
        below.unwrap_or_default() as f64
    };
    let lines = u32::try_from(faults.len())?;
    let root = SVGBackend::with_string(text, (WIDTH, FRAME + LINE * lines.max(1))).into_drawing_area();
    root.fill(&WHITE)?;
    let caption = "Longest silence of a client that finds the primary itself (s)";
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(32)
        .y_label_area_size(100)
        .build_cartesian_2d((0.01..100.0).log_scale(), -0.5..f64::from(lines.max(1)) - 0.5)?;
    let name = |at: &f64| {
        let fault = faults.iter().find(|fault| (at - place(**fault)).abs() < 0.01);
        fault.map(Fault::to_string).unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(2 * faults.len() + 2)
        .y_label_formatter(&name)
        .x_label_formatter(&|seconds: &f64| seconds.to_string())
        .draw()?;
    for (index, agent) in ["surus", "patroni"].into_iter().enumerate() {
        let colour = COLOURS[index];
        let of_agent = all.iter().filter(|series| series.agent == agent);
        let dots: Vec<(f64, f64)> = of_agent
            .flat_map(|series| {
                let line = place(series.fault) + if index == 0 { 0.14 } else { -0.14 };
                let outages = series.outages(DIRECT).into_iter();
                outages.map(move |outage| (outage.as_secs_f64().clamp(0.01, 100.0), line))
            })
            .collect();
        if dots.is_empty() {
            continue;
        }
        let drawn = dots
            .into_iter()
            .map(|dot| Circle::new(dot, 4, colour.mix(0.55).filled()));
        chart
            .draw_series(drawn)?
            .label(agent)
            .legend(move |at| Circle::new(at, 4, colour.filled()));
    }
    let budgets = all.iter().filter_map(|series| {
        let (line, limit) = (place(series.fault), series.limit?.as_secs_f64());
        Some(PathElement::new(
            vec![(limit, line - 0.4), (limit, line + 0.4)],
            COLOURS[2].stroke_width(2),
        ))
    });
    chart
        .draw_series(budgets)?
        .label("budget")
        .legend(|(x, y)| PathElement::new(vec![(x, y - 6), (x, y + 6)], COLOURS[2].stroke_width(2)));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}
