//! One layer and the ways to serve it: measuring one, and what is known of them.

use anyhow::{Result, bail, ensure};
use half::bf16;
use latent_attention::ops::DecodeVariant;
use serde::{Deserialize, Serialize};

use super::super::decode::DECODE;
use super::super::harness::counts::Counts;
use super::super::harness::lab::{Gauge, Lab, Sample};
use super::super::harness::report::{Outcome, Report, Row, Timed};
use super::super::harness::shape::{Format, Model, Shape};
use super::row_id;
use super::variant::Variant;

/// A batch of sequences of as many cached tokens each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    pub batch: usize,
    pub context: usize,
}

impl Point {
    /// Where variants are timed: with the machine full, with one short sequence, and with many.
    pub const TIMED: [Self; 3] =
        [Self { batch: 16, context: 16384 }, Self { batch: 1, context: 8192 }, Self { batch: 64, context: 2048 }];
}

/// What the simulator runs to show that everything would be measured.
pub const SMALL: Point = Point { batch: 1, context: 256 };

/// A variant that took so many times as long as the fastest at one point is not measured at others.
const HOPELESS: f64 = 1.5;

/// Most that a variant's results may differ from the chosen one's, by norms: several times what rounding to bf16 does.
const LARGEST_DIFFERENCE: f64 = 0.01;

/// A layer.
pub struct Layer {
    model: Model,
    format: Format,
    /// The chosen one first; behind those that the library offers, other splits of one of them.
    pub variants: Vec<DecodeVariant>,
    offered: usize,
    /// What the chosen one attended to.
    attended: Vec<(Point, Vec<bf16>)>,
}

impl Layer {
    pub fn new(model: Model, format: Format, variants: Vec<DecodeVariant>) -> Self {
        Self { model, format, offered: variants.len(), variants, attended: Vec::new() }
    }

    fn shape(&self, Point { batch, context }: Point) -> Shape {
        Shape { model: self.model, format: self.format, batch, context }
    }

    /// The name of a row.
    pub fn id(&self, index: usize, point: Point) -> String {
        let shape = row_id(self.model.0, self.format, point);
        // Neither the sizes of the layer nor what came out are part of it.
        let variant = Variant::new(&self.variants[index], &self.shape(point), index == 0, 0.0);
        variant.map_or(shape.clone(), |variant| variant.id(&shape))
    }

    /// Measures a variant at a point, and holds its results against those of the chosen one.
    ///
    /// # Errors
    /// What the operation says, or that the results differ.
    pub fn measure(&mut self, lab: &mut Lab, index: usize, point: Point, report: &Report) -> Result<Row> {
        let shape = self.shape(point);
        if index > 0 && self.expected(point).is_none() {
            // Its row may be from a run before this one.
            self.attend(lab, 0, &shape, report)?;
            self.attended.push((point, std::mem::take(&mut lab.attended)));
        }
        let outcome = self.attend(lab, index, &shape, report)?;
        if index == 0 {
            self.attended.push((point, lab.attended.clone()));
        }
        let difference = self.expected(point).map_or(f64::NAN, |expected| difference(&lab.attended, expected));
        ensure!(
            difference <= LARGEST_DIFFERENCE,
            "its results differ from those of the chosen variant by {difference:.3} of their norm"
        );
        let mut row = Row::new(DECODE.name, &shape, &(DECODE.work)(&shape)?, outcome);
        row.variant = Some(Variant::new(&self.variants[index], &shape, index == 0, difference)?);
        Ok(row)
    }

    fn expected(&self, point: Point) -> Option<&[bf16]> {
        self.attended.iter().find(|(of, _)| *of == point).map(|(_, attended)| attended.as_slice())
    }

    fn attend(&self, lab: &mut Lab, index: usize, shape: &Shape, report: &Report) -> Result<Outcome> {
        lab.variant = Some(self.variants[index]);
        let outcome = match &lab.gauge {
            Gauge::Meter(_) => Outcome::Counted(Counts::count(lab, &DECODE, shape, &report.ceilings)?),
            Gauge::Clock(_) => match (DECODE.run)(lab, shape)? {
                Sample::Times(times) => Outcome::Timed(Timed::new(times, &(DECODE.work)(shape)?, &report.ceilings[0])),
                Sample::Counts(_) => bail!("a clock counted"),
            },
        };
        lab.variant = None;
        Ok(outcome)
    }

    /// Why a variant need not be measured at a point, if it was far from the fastest at another.
    pub fn slowness(&self, report: &Report, index: usize, point: Point) -> Option<String> {
        Point::TIMED.into_iter().filter(|other| *other != point).find_map(|other| {
            let id = self.id(index, other);
            let us = report.rows.iter().find(|row| row.id() == id)?.median_us()?;
            let fastest = self.rows(report, other).filter_map(Row::median_us).fold(f64::INFINITY, f64::min);
            let times = us / fastest;
            (times > HOPELESS)
                .then(|| format!("{times:.1} times as long as the fastest at {}x{}", other.batch, other.context))
        })
    }

    /// The rows of this layer at a point.
    fn rows<'a>(&'a self, report: &'a Report, point: Point) -> impl Iterator<Item = &'a Row> {
        report.rows.iter().filter(move |row| {
            let shape = (row.model.as_str(), row.format.as_str(), row.batch, row.context);
            shape == (self.model.0, self.format.name(), point.batch, point.context)
        })
    }

    /// Whether a variant's splits are those that the library chooses: predictions are of no others.
    pub fn is_offered(&self, index: usize) -> bool {
        index < self.offered
    }

    /// The variant that took least at all points together of those that the library offers, or the chosen one if nothing was
    /// timed. Rows of a run before this one may be of other splits.
    pub fn fastest(&self, report: &Report) -> DecodeVariant {
        let offered = |variant: &Variant| {
            self.variants[..self.offered].iter().find(|offered| {
                let has = (super::variant::Tiles::of(offered), offered.tile_ns, offered.block_ns);
                has == (variant.tiles.clone(), variant.tile_ns, variant.block_ns)
            })
        };
        let is_of_layer = |row: &&Row| {
            (row.model.as_str(), row.format.as_str()) == (self.model.0, self.format.name())
                && row.variant.as_ref().and_then(offered).is_some()
        };
        let rows: Vec<&Row> = report.rows.iter().filter(is_of_layer).collect();
        let best = super::choices::fastest(&rows).and_then(|best| offered(best.variant));
        *best.unwrap_or(&self.variants[0])
    }
}

/// The norm of the difference of two results, over that of the second.
fn difference(got: &[bf16], expected: &[bf16]) -> f64 {
    if got.len() != expected.len() {
        return f64::NAN;
    }
    let squares = |of: &dyn Fn((&bf16, &bf16)) -> f64| got.iter().zip(expected).map(of).map(|x| x * x).sum::<f64>();
    let apart = squares(&|(got, expected)| got.to_f64() - expected.to_f64());
    (apart / squares(&|(_, expected)| expected.to_f64()).max(f64::MIN_POSITIVE)).sqrt()
}
