//! Quantised weights in directories: FP8 in blocks, as DeepSeek-V3 is published; all others are refused.

use std::path::Path;

use rayon::prelude::*;
use safetensors::Dtype;
use serde_json::Value;

use super::families::FREQUENCY_INDEX;
use super::fields::Fields;
use super::safetensors::SafetensorsSource;
use super::source::{TensorSource, missing, unfit};
use crate::error::{Error, Result};

/// What stands behind a weight's name in that of its blocks' factors. "Inverse" is DeepSeek's word: weights are multiplied
/// by them.
const SCALES: &str = "_scale_inv";

/// Keys of `quantization_config` that change nothing of what weights are: which of them are quantised, and whether a factor
/// is a power of two, the tensors' types say too.
const SILENT_KEYS: &[&str] =
    &["scale_fmt", "modules_to_not_convert", "modules_to_convert", "ignored_layers", "dequantize"];

/// Sizes of the blocks of a matrix that have a factor of their own. The last ones of a row or column may be smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    rows: usize,
    cols: usize,
}

impl Blocks {
    /// Reads `quantization_config`; `None` if the weights are not quantised.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names the method, or the key of it, that is not known here.
    pub fn parse(config: Fields) -> Result<Option<Self>> {
        let Some(value) = config.value("quantization_config") else { return Ok(None) };
        let method = value.get("quant_method").and_then(Value::as_str).unwrap_or("unknown");
        let refuse = |why: String| {
            let what = format!("quantization_config (quant_method `{method}`) in {}", config.path.display());
            Err(Error::Unsupported { what, why })
        };
        if method != "fp8" {
            return refuse(
                "of quantised weights only FP8 in blocks (quant_method `fp8`) and GGUF files are read".into(),
            );
        }
        let Some(own) = config.optional_object("quantization_config")? else { return Ok(None) };
        // What may be said of each, and means weights in e4m3 that are multiplied by inputs as they are: static schemes
        // round inputs by factors of their own, and packed experts are another format.
        for (key, known) in [("fmt", "e4m3"), ("activation_scheme", "dynamic"), ("expert_dtype", "fp8")] {
            if let Some(other) = own.optional_text(key)?.filter(|value| *value != known) {
                return refuse(format!("`{key}` `{other}` is not known, only `{known}`"));
            }
        }
        let known = ["quant_method", "weight_block_size", "fmt", "activation_scheme", "expert_dtype"];
        if let Some((key, _)) = own.present().find(|(key, _)| !known.contains(key) && !SILENT_KEYS.contains(key)) {
            return refuse(format!("its key `{key}` is not known"));
        }
        let Some(sizes) = own.optional_array("weight_block_size")? else {
            return refuse("only weights with a factor for each block (`weight_block_size`) are read".into());
        };
        let size = |value: &Value| value.as_u64().filter(|size| (1..=1 << 28).contains(size)).map(|size| size as usize);
        match sizes.iter().map(size).collect::<Option<Vec<_>>>().as_deref() {
            Some(&[rows, cols]) => Ok(Some(Self { rows, cols })),
            _ => Err(own
                .error(format!("`weight_block_size` must be two positive sizes, got {}", Value::from(sizes.clone())))),
        }
    }
}

/// Refuses the first weight, by name, of a type that holds codes and no numbers: weights of integers, and of FP8 where the
/// configuration says nothing of it.
///
/// # Errors
/// [`Error::Tensor`] with the tensor's name, shape and type.
pub(super) fn check_types(source: &SafetensorsSource, blocks: Option<Blocks>) -> Result<()> {
    let is_float = |dtype| matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16);
    for name in source.names() {
        let Some(dtype) = source.dtype(name).filter(|&dtype| !is_float(dtype)) else { continue };
        let of_weights = name.ends_with(".weight") || name.ends_with(".bias");
        let in_layer = name.starts_with("model.layers.") && !name.ends_with(FREQUENCY_INDEX);
        let known = blocks.is_some() && matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E8M0);
        if (of_weights || in_layer) && !known {
            let expected = match blocks {
                None => "a weight in F32, F16 or BF16, as the configuration says nothing of quantisation",
                Some(_) => "a weight in F32, F16, BF16 or F8_E4M3",
            };
            let got = source.shape(name).map(|shape| format!("{shape:?} {dtype}"));
            return Err(unfit(source.path(), name, expected.into(), got));
        }
    }
    Ok(())
}

/// A directory of tensors, some of which are e4m3 numbers in blocks. They are read as the numbers that they stand for.
pub(super) struct Fp8Source {
    inner: SafetensorsSource,
    blocks: Blocks,
}

impl Fp8Source {
    pub fn new(inner: SafetensorsSource, blocks: Blocks) -> Self {
        Self { inner, blocks }
    }

    /// Whether a tensor holds the factors of another.
    pub fn is_scales(source: &SafetensorsSource, name: &str) -> bool {
        name.strip_suffix(SCALES).and_then(|weight| source.dtype(weight)) == Some(Dtype::F8_E4M3)
    }

    /// The factors of a matrix, one for each block.
    fn scales(&self, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
        let scales = format!("{name}{SCALES}");
        let grid = [shape[0].div_ceil(self.blocks.rows), shape[1].div_ceil(self.blocks.cols)];
        let numbers = match self.inner.dtype(&scales) {
            None => return Err(missing(&self.inner, &scales, &format!("{grid:?}, the factors of F8_E4M3 `{name}`"))),
            Some(Dtype::F8_E8M0) => {
                let bytes = self.inner.bytes(&scales, &grid, Dtype::F8_E8M0)?;
                bytes.iter().map(|&byte| e8m0(byte)).collect()
            }
            Some(_) => self.inner.read(&scales, &grid)?,
        };
        match numbers.iter().position(|x| !x.is_finite()) {
            None => Ok(numbers),
            Some(at) => {
                let got = format!("{} for block [{}, {}]", numbers[at], at / grid[1], at % grid[1]);
                Err(unfit(self.inner.path(), &scales, "finite factors".into(), Some(got)))
            }
        }
    }
}

impl TensorSource for Fp8Source {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.inner.shape(name)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        if self.inner.dtype(name) != Some(Dtype::F8_E4M3) {
            return self.inner.read(name, shape);
        }
        let codes = self.inner.bytes(name, shape, Dtype::F8_E4M3)?;
        let &[rows, cols] = shape else {
            let got = Some(format!("{shape:?} F8_E4M3"));
            return Err(unfit(self.inner.path(), name, "a matrix, as blocks of weights are".into(), got));
        };
        let scales = self.scales(name, [rows, cols])?;
        let mut numbers = vec![0.0; codes.len()];
        // A matrix without columns has nothing to fill.
        let cols = cols.max(1);
        let row_scales = cols.div_ceil(self.blocks.cols);
        numbers.par_chunks_mut(cols).zip(codes.par_chunks(cols)).enumerate().for_each(|(row, (numbers, codes))| {
            let scales = &scales[row / self.blocks.rows * row_scales..][..row_scales];
            let blocks = numbers.chunks_mut(self.blocks.cols).zip(codes.chunks(self.blocks.cols));
            for ((numbers, codes), scale) in blocks.zip(scales) {
                numbers.iter_mut().zip(codes).for_each(|(x, &code)| *x = E4M3[usize::from(code)] * scale);
            }
        });
        Ok(numbers)
    }

    fn read_one_of(&self, name: &str, shape: [usize; 3], index: usize) -> Result<Vec<f32>> {
        // Numbers that are quantised are none of the types that it finds.
        self.inner.read_one_of(name, shape, index)
    }

    fn read_integers(&self, name: &str, shape: &[usize]) -> Result<Vec<i64>> {
        self.inner.read_integers(name, shape)
    }
}

/// The numbers of all 256 codes.
static E4M3: [f32; 256] = {
    let mut numbers = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        numbers[code] = e4m3(code as u32);
        code += 1;
    }
    numbers
};

/// The number of a code of OCP's e4m3: a sign, four bits of exponent (bias 7) and three of mantissa; no infinities, and
/// NaN where all bits but the sign are set.
const fn e4m3(code: u32) -> f32 {
    let (exponent, mantissa) = (code >> 3 & 15, code & 7);
    let magnitude = match (exponent, mantissa) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa as f32 / 512.0,
        _ => f32::from_bits((exponent + 120) << 23 | mantissa << 20),
    };
    if code & 128 == 0 { magnitude } else { -magnitude }
}

/// The number of a code of OCP's e8m0: 2 to the power of the code minus 127, and NaN for 255.
fn e8m0(code: u8) -> f32 {
    match code {
        255 => f32::NAN,
        // Below f32's normal numbers.
        0 => f32::from_bits(1 << 22),
        _ => f32::from_bits(u32::from(code) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_numbers_of_their_formats() {
        let number = |code: u8| E4M3[usize::from(code)];
        for (code, expected) in [
            (0x00, 0.0),
            (0x01, 1.0 / 512.0),
            (0x07, 7.0 / 512.0),
            (0x08, 1.0 / 64.0),
            (0x38, 1.0),
            (0x3d, 1.625),
            (0x7e, 448.0),
        ] {
            assert_eq!(number(code), expected);
            assert_eq!(number(code | 0x80), -expected);
        }
        assert!(number(0x7f).is_nan() && number(0xff).is_nan());
        assert_eq!(E4M3.iter().filter(|x| x.is_nan()).count(), 2);
        assert_eq!(
            [e8m0(0), e8m0(1), e8m0(127), e8m0(130), e8m0(254)],
            [2f32.powi(-127), 2f32.powi(-126), 1.0, 8.0, 2f32.powi(127)]
        );
        assert!(e8m0(255).is_nan());
    }
}
