//! Tensors in safetensors files: one file, or shards in a directory.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::source::{TensorSource, unfit};
use crate::error::{Error, Result};

const INDEX_FILE: &str = "model.safetensors.index.json";
/// The longest header that the safetensors format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The tensors of one or more safetensors files.
#[derive(Debug)]
pub struct SafetensorsSource {
    path: PathBuf,
    tensors: HashMap<String, Located>,
}

/// Where one tensor's bytes lie.
#[derive(Debug)]
struct Located {
    file: PathBuf,
    /// From the beginning of the file.
    offset: u64,
    bytes: usize,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Located {
    fn describe(&self) -> String {
        format!("{:?} {}", self.shape, self.dtype)
    }

    fn read(&self) -> Result<Vec<u8>> {
        let io = |cause| Error::Io { path: self.file.clone(), cause };
        let mut file = File::open(&self.file).map_err(io)?;
        // Checked when the file was opened; another check keeps a file that shrank since from a huge allocation.
        let end = self.offset.saturating_add(self.bytes as u64);
        if file.metadata().map_err(io)?.len() < end {
            return Err(Error::File { path: self.file.clone(), why: "is shorter than when it was opened".into() });
        }
        file.seek(SeekFrom::Start(self.offset)).map_err(io)?;
        let mut bytes = vec![0; self.bytes];
        file.read_exact(&mut bytes).map_err(io)?;
        Ok(bytes)
    }
}

impl SafetensorsSource {
    /// Reads the header of one file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::File`] if it is cut short or its header is malformed.
    pub fn file(path: &Path) -> Result<Self> {
        let tensors = read_header(path)?.into_iter().collect();
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// Reads the headers of a model's shards: those named by `model.safetensors.index.json`, else
    /// `model.safetensors`, else every `*.safetensors` except `not_a_shard`.
    ///
    /// # Errors
    /// As for [`SafetensorsSource::file`], and [`Error::File`] if there are no shards, two of them hold the same
    /// tensor, or the index names a tensor that its shard does not hold.
    pub fn directory(path: &Path, not_a_shard: Option<&Path>) -> Result<Self> {
        let index = read_index(path)?;
        let shards = match &index {
            Some(index) => index.values().collect::<BTreeSet<_>>().into_iter().map(|name| path.join(name)).collect(),
            None => find_shards(path, not_a_shard)?,
        };
        let mut tensors: HashMap<String, Located> = HashMap::new();
        for shard in shards {
            for (name, located) in read_header(&shard)? {
                if let Some(other) = tensors.get(&name) {
                    let why = format!("tensor `{name}` is also in {}", other.file.display());
                    return Err(Error::File { path: shard, why });
                }
                tensors.insert(name, located);
            }
        }
        for (name, shard) in index.iter().flatten() {
            if tensors.get(name).is_none_or(|located| located.file != path.join(shard)) {
                let why = format!("says that tensor `{name}` is in {shard}, but it is not");
                return Err(Error::File { path: path.join(INDEX_FILE), why });
            }
        }
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// The names of all tensors, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The tensor, if it has the wanted shape and one of the wanted types.
    fn find(&self, name: &str, shape: &[usize], types: &[Dtype]) -> Result<&Located> {
        let names: Vec<_> = types.iter().map(Dtype::to_string).collect();
        let expected = || format!("{shape:?} {}", names.join(" or "));
        let located = self.tensors.get(name).ok_or_else(|| unfit(&self.path, name, expected(), None))?;
        if located.shape == shape && types.contains(&located.dtype) {
            return Ok(located);
        }
        Err(unfit(&located.file, name, expected(), Some(located.describe())))
    }
}

impl TensorSource for SafetensorsSource {
    fn path(&self) -> &Path {
        &self.path
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|located| located.shape.clone())
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let located = self.find(name, shape, &[Dtype::F32, Dtype::F16, Dtype::BF16])?;
        let bytes = located.read()?;
        Ok(match located.dtype {
            Dtype::F16 => decode(&bytes, |raw| f16::from_le_bytes(raw).to_f32()),
            Dtype::BF16 => decode(&bytes, |raw| bf16::from_le_bytes(raw).to_f32()),
            _ => decode(&bytes, f32::from_le_bytes),
        })
    }

    fn read_integers(&self, name: &str, shape: &[usize]) -> Result<Vec<i64>> {
        let located = self.find(name, shape, &[Dtype::U8, Dtype::I32, Dtype::I64])?;
        let bytes = located.read()?;
        Ok(match located.dtype {
            Dtype::U8 => bytes.iter().map(|&byte| i64::from(byte)).collect(),
            Dtype::I32 => decode(&bytes, |raw| i64::from(i32::from_le_bytes(raw))),
            _ => decode(&bytes, i64::from_le_bytes),
        })
    }
}

fn decode<const N: usize, T>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&raw| number(raw)).collect()
}

/// Reads and checks one file's header: afterwards every tensor's byte range lies inside the file and has the
/// length that its shape and type ask for.
fn read_header(path: &Path) -> Result<Vec<(String, Located)>> {
    let io = |cause| Error::Io { path: path.to_owned(), cause };
    let malformed = |why: String| Error::File { path: path.to_owned(), why };
    let mut file = File::open(path).map_err(io)?;
    let file_len = file.metadata().map_err(io)?.len();
    let mut header_len = [0; 8];
    if file_len < 8 {
        return Err(malformed(format!("is {file_len} bytes long, too short for a safetensors file")));
    }
    file.read_exact(&mut header_len).map_err(io)?;
    let header_len = u64::from_le_bytes(header_len);
    if header_len > MAX_HEADER_BYTES.min(file_len - 8) {
        let why = format!("claims a safetensors header of {header_len} bytes in a file of {file_len} bytes");
        return Err(malformed(why));
    }
    let mut header = vec![0; header_len as usize];
    file.read_exact(&mut header).map_err(io)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| malformed(format!("malformed safetensors header: {e}")))?;
    let data = 8 + header_len;
    if metadata.data_len() as u64 != file_len - data {
        let why = format!(
            "holds {} bytes of tensors, its header says {}: the file is cut short or damaged",
            file_len - data,
            metadata.data_len()
        );
        return Err(malformed(why));
    }
    let located = metadata.tensors().into_iter().map(|(name, info)| {
        let (start, end) = info.data_offsets;
        let located = Located {
            file: path.to_owned(),
            offset: data + start as u64,
            bytes: end - start,
            dtype: info.dtype,
            shape: info.shape.clone(),
        };
        (name, located)
    });
    Ok(located.collect())
}

/// The map from tensor to shard, if the directory has one.
fn read_index(directory: &Path) -> Result<Option<HashMap<String, String>>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let path = directory.join(INDEX_FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::Io { path, cause }),
    };
    let index: Index = match serde_json::from_slice(&text) {
        Ok(index) => index,
        Err(e) => return Err(Error::File { path, why: e.to_string() }),
    };
    // A downloaded index must not make us open files elsewhere.
    let is_plain = |name: &str| matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    match index.weight_map.values().find(|name| !is_plain(name)) {
        Some(name) => Err(Error::File { path, why: format!("names a shard outside of its directory: `{name}`") }),
        None => Ok(Some(index.weight_map)),
    }
}

fn find_shards(directory: &Path, not_a_shard: Option<&Path>) -> Result<Vec<PathBuf>> {
    let single = directory.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let io = |cause| Error::Io { path: directory.to_owned(), cause };
    let mut shards = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "safetensors") && Some(path.as_path()) != not_a_shard {
            shards.push(path);
        }
    }
    if shards.is_empty() {
        return Err(Error::File { path: directory.to_owned(), why: "holds no *.safetensors file".into() });
    }
    shards.sort();
    Ok(shards)
}
