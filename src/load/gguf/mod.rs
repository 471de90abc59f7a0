//! Tensors in GGUF files, through candle's reader, under Hugging Face's names and in Hugging Face's row order.

mod guard;
mod metadata;
mod names;

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, TensorInfo};
use serde_json::{Map, Value};

use self::guard::HeaderGuard;
use self::metadata::Metadata;
use super::source::{TensorSource, unfit};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// The tensors of a GGUF file.
pub(crate) struct GgufSource {
    path: PathBuf,
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

/// Reads the header of a GGUF file and checks that every tensor lies inside the file.
pub(crate) fn open(path: &Path) -> Result<Gguf> {
    let io = |cause| Error::Io { path: path.to_owned(), cause };
    let file = File::open(path).map_err(io)?;
    let file_len = file.metadata().map_err(io)?.len();
    let mut reader = HeaderGuard::new(BufReader::new(file));
    let content = Content::read(&mut reader)
        .map_err(|e| Error::File { path: path.to_owned(), why: format!("malformed GGUF header: {e}") })?;
    for (name, info) in &content.tensor_infos {
        check_extent(path, name, info, content.tensor_data_offset, file_len)?;
    }
    let names = content.tensor_infos.keys().filter_map(|name| Some((names::hugging_face(name)?, name.clone())));
    let names = names.collect();

    let metadata = Metadata { path, values: &content.metadata };
    let tokenizer = metadata.tokenizer()?;
    let mut source = GgufSource { path: path.to_owned(), content, names, permuted: None };
    let metadata = Metadata { path, values: &source.content.metadata };
    let config = metadata.config(&source)?;
    let architecture = metadata.required_text("general.architecture")?;
    // Only Llama is rotated in interleaved pairs by llama.cpp, so only its rows were reordered for it.
    if architecture == "llama" {
        let heads = |key: &str| config.get(key).and_then(Value::as_u64).unwrap_or_default() as usize;
        source.permuted = Some(Heads { query: heads("num_attention_heads"), kv: heads("num_key_value_heads") });
    }
    // The vocabulary is in the tokenizer now; the tensors need none of this.
    source.content.metadata = HashMap::new();
    Ok(Gguf { source, config, tokenizer })
}

/// Refuses what candle would overflow, misalign or allocate too much on.
fn check_extent(path: &Path, name: &str, info: &TensorInfo, data: u64, file_len: u64) -> Result<()> {
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

/// A tensor as the file has it, under the file's own name.
fn describe(own: &str, info: &TensorInfo) -> String {
    format!("{:?} {:?} (`{own}`)", info.shape.dims(), info.ggml_dtype)
}

impl GgufSource {
    fn info(&self, name: &str) -> Option<(&str, &TensorInfo)> {
        let own = self.names.get(name)?;
        Some((own, self.content.tensor_infos.get(own)?))
    }

    /// Reads a tensor by the file's own name.
    fn read_own(&self, name: &str, info: &TensorInfo) -> Result<Vec<f32>> {
        let io = |cause| Error::Io { path: self.path.clone(), cause };
        let mut file = File::open(&self.path).map_err(io)?;
        // candle allocates before it looks at the file's length; the file may have shrunk since `open`.
        let file_len = file.metadata().map_err(io)?.len();
        check_extent(&self.path, name, info, self.content.tensor_data_offset, file_len)?;
        let dequantized = info
            .read(&mut file, self.content.tensor_data_offset, &Device::Cpu)
            .and_then(|tensor| tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>());
        dequantized.map_err(|e| {
            let got = format!("{:?} {:?} ({e})", info.shape.dims(), info.ggml_dtype);
            unfit(&self.path, name, "a type that candle can dequantise".into(), Some(got))
        })
    }

    /// How many heads the rows of this tensor were reordered by, if they were.
    fn permuted_heads(&self, name: &str) -> Option<usize> {
        let heads = self.permuted?;
        let module = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias"))?;
        match module.rsplit('.').next()? {
            "q_proj" => Some(heads.query),
            "k_proj" => Some(heads.kv),
            _ => None,
        }
    }
}

impl TensorSource for GgufSource {
    fn path(&self) -> &Path {
        &self.path
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.info(name).map(|(_, info)| info.shape.dims().to_vec())
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let expected = || format!("{shape:?}");
        let (own, info) = self.info(name).ok_or_else(|| unfit(&self.path, name, expected(), None))?;
        if info.shape.dims() != shape {
            return Err(unfit(&self.path, name, expected(), Some(describe(own, info))));
        }
        let data = self.read_own(own, info)?;
        match (self.permuted_heads(name), shape.first()) {
            (Some(heads), Some(&rows)) => Ok(names::undo_permutation(&data, rows, heads)),
            _ => Ok(data),
        }
    }

    fn read_integers(&self, name: &str, shape: &[usize]) -> Result<Vec<i64>> {
        let got = self.info(name).map(|(own, info)| describe(own, info));
        Err(unfit(&self.path, name, format!("{shape:?} integers"), got))
    }
}
