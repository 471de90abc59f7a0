//! What the cost model says of an H200: the times of `decode`, from its kernels' machine code.

use std::path::Path;

use anyhow::Result;
use latent_attention::image::Arch;
use latent_attention_cost::calibrate::Calibration;
use latent_attention_cost::machine::H200;
use latent_attention_cost::survey::Surveyor;
use latent_attention_cost::tools::Tools;

use super::shape::{Operation, Shape};

/// The operation that the model knows.
const PREDICTED: &str = "decode";

/// The cost model, and what it has counted so far.
pub struct Predictions {
    surveyor: Surveyor,
    calibration: Calibration,
}

impl Predictions {
    /// The model, if the programs that it needs are there.
    ///
    /// # Errors
    /// Where they were looked for.
    pub fn new() -> Result<Self> {
        let tools = Tools::find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target"))?;
        Ok(Self { surveyor: Surveyor::new(tools, Arch::Sm90a, &H200), calibration: Calibration::committed()? })
    }

    /// Microseconds of a row, if the model knows its operation.
    ///
    /// # Errors
    /// What keeps it from counting the kernel.
    pub fn predict(&mut self, operation: &Operation, shape: &Shape) -> Result<Option<f64>> {
        if operation.name != PREDICTED {
            return Ok(None);
        }
        let (layer, merge) = self.surveyor.layer(shape.model.0, shape.format.name())?;
        Ok(Some(self.calibration.constants.predict(&H200, layer, merge, shape.batch, shape.context)))
    }
}
