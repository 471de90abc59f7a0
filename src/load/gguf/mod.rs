//! Tensors in GGUF files, through candle's reader, under Hugging Face's names and in Hugging Face's row order.

mod dequantize;
mod guard;
mod latent;
mod metadata;
mod names;

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, TensorInfo};
use serde_json::{Map, Value};

use self::dequantize::{Reordered, dequantize};
use self::guard::HeaderGuard;
use self::latent::Place;
use self::metadata::Metadata;
use super::blocks::{BlockFormat, QuantizedMatrix};
use super::families::GgufName;
use super::file::TensorFile;
use super::source::{TensorSource, unfit};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// The tensors of a GGUF file, which stays open.
pub(crate) struct GgufSource {
    file: TensorFile,
    content: Content,
    /// Hugging Face's name to the file's name.
    names: HashMap<String, String>,
    permuted: Option<Heads>,
}

/// Head counts by which llama.cpp's converter reordered the query and key rows of a Llama model.
#[derive(Clone, Copy)]
struct Heads {
    query: usize,
    kv: usize,
}

/// What a GGUF file holds: its tensors, its configuration in Hugging Face's keys, its tokenizer.
pub(crate) struct Gguf {
    pub source: GgufSource,
    pub config: Map<String, Value>,
    pub tokenizer: Option<Tokenizer>,
}

/// Reads the header of a GGUF file and checks that every tensor lies inside the file and is one that is read.
pub(crate) fn open(path: &Path) -> Result<Gguf> {
    let file = TensorFile::open(path)?;
    guard::check_magic(&file)?;
    let content = Content::read(&mut HeaderGuard::new(file.reader())).map_err(|e| {
        let why = format!("malformed GGUF header: {}", guard::message(e));
        Error::File { path: path.to_owned(), why }
    })?;
    let metadata = Metadata { path, values: &content.metadata };
    let alignment = metadata.alignment()?;
    // By name, so that the same file gives the same message.
    let mut tensors: Vec<_> = content.tensor_infos.iter().collect();
    tensors.sort_unstable_by_key(|(name, _)| *name);
    for (name, info) in tensors {
        check_extent(&file, name, info, content.tensor_data_offset)?;
        check_alignment(path, name, info, alignment)?;
    }
    let (_, family) = metadata.family()?;
    let named = |name: &String| Some((names::hugging_face(name, family.layers)?, name.clone()));
    let names = content.tensor_infos.keys().filter_map(named).collect();

    let tokenizer = metadata.tokenizer()?;
    let mut source = GgufSource { file, content, names, permuted: None };
    let metadata = Metadata { path, values: &source.content.metadata };
    let config = metadata.config(&source)?;
    let number = |key: &str| config.get(key).and_then(Value::as_u64).unwrap_or_default() as usize;
    let (_, name) = metadata.family()?;
    if name.reordered {
        source.permuted = Some(Heads { query: number("num_attention_heads"), kv: number("num_key_value_heads") });
    }
    source.refuse_unread(name, number("num_hidden_layers"))?;
    // The vocabulary is in the tokenizer now; the tensors need none of this.
    source.content.metadata = HashMap::new();
    Ok(Gguf { source, config, tokenizer })
}

/// Refuses what candle would overflow, misalign or allocate too much on.
fn check_extent(file: &TensorFile, name: &str, info: &TensorInfo, data: u64) -> Result<()> {
    let (path, file_len) = (file.path(), file.len());
    let dims = info.shape.dims();
    let block = info.ggml_dtype.block_size();
    let elements = dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
    let got = || Some(format!("{dims:?} {:?}", info.ggml_dtype));
    let whole_rows = dims.last().is_some_and(|&cols| cols != 0 && cols.is_multiple_of(block));
    let Some(elements) = elements.filter(|&n| n != 0 && whole_rows) else {
        let expected = format!("non-empty rows of whole blocks of {block} elements");
        return Err(unfit(path, name, expected, got()));
    };
    let bytes = (elements / block).checked_mul(info.ggml_dtype.type_size()).map(|bytes| bytes as u64);
    let end = bytes.and_then(|bytes| data.checked_add(info.offset)?.checked_add(bytes));
    if end.is_some_and(|end| end <= file_len) {
        return Ok(());
    }
    let expected = format!("to lie inside the file of {file_len} bytes");
    let got = format!("{dims:?} {:?} at byte {}", info.ggml_dtype, data.saturating_add(info.offset));
    Err(unfit(path, name, expected, Some(got)))
}

/// Refuses a tensor where the format lets none begin. candle's blocks have to lie on their own alignment, of which the
/// file's is a multiple.
fn check_alignment(path: &Path, name: &str, info: &TensorInfo, alignment: u64) -> Result<()> {
    if info.offset.is_multiple_of(alignment) {
        return Ok(());
    }
    let got = format!("byte {} of them", info.offset);
    Err(unfit(path, name, format!("to begin at a multiple of {alignment} bytes of the tensors"), Some(got)))
}

/// A tensor as the file has it, under the file's own name.
fn describe(own: &str, info: &TensorInfo) -> String {
    format!("{:?} {:?} (`{own}`)", info.shape.dims(), info.ggml_dtype)
}

impl GgufSource {
    /// Hugging Face's names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.keys().map(|name| latent::listed(name)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn info(&self, name: &str) -> Option<(&str, &TensorInfo)> {
        let own = self.names.get(name)?;
        Some((own, self.content.tensor_infos.get(own)?))
    }

    /// Where a tensor lies, if it has this shape.
    fn place_of(&self, name: &str, shape: &[usize]) -> Result<Place<'_>> {
        let place = self.place(name);
        match place.filter(|place| place.shape() == shape) {
            Some(place) => Ok(place),
            None => Err(unfit(self.path(), name, format!("{shape:?}"), place.map(|place| place.describe()))),
        }
    }

    /// Refuses a file with tensors that this crate makes no use of: the model computes something else than what would
    /// be read of it. (llama.cpp does not load such files either.)
    fn refuse_unread(&self, name: &GgufName, layers: usize) -> Result<()> {
        let is_read = |own: &str| match names::layer(own) {
            Some(layer) => layer < layers && names::hugging_face(own, name.layers).is_some(),
            None => names::hugging_face(own, name.layers).is_some() || (own == names::ROPE_DIVISORS && name.divisors),
        };
        // The first by name, so that the same file gives the same message.
        let Some((own, info)) =
            self.content.tensor_infos.iter().filter(|(own, _)| !is_read(own)).min_by_key(|(own, _)| *own)
        else {
            return Ok(());
        };
        let expected = format!("none of this name in a `{}` model of {layers} layers", name.architecture);
        Err(unfit(self.path(), own, expected, Some(describe(own, info))))
    }

    /// Reads a tensor by the file's own name.
    fn read_own(&self, name: &str, info: &TensorInfo, reordered: Option<Reordered>) -> Result<Vec<f32>> {
        self.read_part(name, info, 0, info.shape.elem_count(), reordered)
    }

    /// Reads `elements` numbers of a tensor behind as many times `part`, whole rows.
    fn read_part(
        &self,
        name: &str,
        info: &TensorInfo,
        part: usize,
        elements: usize,
        reordered: Option<Reordered>,
    ) -> Result<Vec<f32>> {
        // `open` has checked that none of these overflows, and that rows are whole blocks.
        let dtype = info.ggml_dtype;
        let bytes = elements / dtype.block_size() * dtype.type_size();
        let offset = self.content.tensor_data_offset + info.offset + (part * bytes) as u64;
        let blocks = self.file.lend(offset, bytes)?;
        dequantize(dtype, &blocks, elements, reordered).map_err(|why| {
            let got = format!("{:?} {dtype:?} ({why})", info.shape.dims());
            unfit(self.path(), name, "a type that candle can dequantise".into(), Some(got))
        })
    }

    /// How the rows of this tensor were reordered, if they were.
    fn reordered(&self, name: &str, shape: &[usize]) -> Option<Reordered> {
        let heads = self.permuted?;
        let module = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias"))?;
        let heads = match module.rsplit('.').next()? {
            "q_proj" => heads.query,
            "k_proj" => heads.kv,
            _ => return None,
        };
        let (rows, row_len) = (*shape.first()?, shape.iter().skip(1).product());
        let head_dim = rows.checked_div(heads).filter(|dim| dim.is_multiple_of(2) && dim * heads == rows)?;
        (head_dim > 0).then_some(Reordered { head_dim, row_len })
    }
}

impl TensorSource for GgufSource {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.place(name).map(|place| place.shape())
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match self.place_of(name, shape)? {
            Place::Whole((own, info)) => self.read_own(own, info, self.reordered(name, shape)),
            Place::Stacked((own, info), number) => self.read_part(own, info, number, shape.iter().product(), None),
            Place::Split { key, value } => self.read_split(key, value),
        }
    }

    fn read_blocks(&self, name: &str, rows: usize, cols: usize) -> Result<Option<QuantizedMatrix>> {
        let shape = [rows, cols];
        let (info, number) = match self.place_of(name, &shape)? {
            Place::Whole((_, info)) => (info, 0),
            Place::Stacked((_, info), number) => (info, number),
            // Its parts are blocks, but not of these rows.
            Place::Split { .. } => return Ok(None),
        };
        let format = match info.ggml_dtype {
            GgmlDType::Q4_0 => BlockFormat::Q4_0,
            GgmlDType::Q4_1 => BlockFormat::Q4_1,
            GgmlDType::Q8_0 => BlockFormat::Q8_0,
            _ => return Ok(None),
        };
        // `open` has checked that rows are whole blocks, and that the product does not overflow.
        let row = cols / BlockFormat::NUMBERS * format.bytes();
        let offset = self.content.tensor_data_offset + info.offset + (number * rows * row) as u64;
        let file = self.file.lend(offset, rows * row)?;
        let bytes = match self.reordered(name, &shape) {
            Some(heads) => heads.undone(&file, row),
            None => file.to_vec(),
        };
        Ok(Some(QuantizedMatrix { format, rows, cols, bytes }))
    }

    fn read_integers(&self, name: &str, shape: &[usize]) -> Result<Vec<i64>> {
        let got = self.info(name).map(|(own, info)| describe(own, info));
        Err(unfit(self.path(), name, format!("{shape:?} integers"), got))
    }
}
