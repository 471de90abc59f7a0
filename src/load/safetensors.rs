//! Tensors in safetensors files: one file, or shards in a directory.

use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::file::TensorFile;
use super::source::{TensorSource, unfit};
use crate::error::{Error, Result};

const INDEX_FILE: &str = "model.safetensors.index.json";
/// The longest header that the safetensors format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The tensors of one or more safetensors files, which stay open.
#[derive(Debug)]
pub struct SafetensorsSource {
    path: PathBuf,
    files: Vec<TensorFile>,
    tensors: HashMap<String, Located>,
}

/// Where one tensor's bytes lie.
#[derive(Debug)]
struct Located {
    /// Which of the files.
    file: usize,
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
}

impl SafetensorsSource {
    /// Reads the header of one file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::File`] if it is cut short or its header is malformed.
    pub fn file(path: &Path) -> Result<Self> {
        let mut source = Self::empty(path);
        source.add(path)?;
        Ok(source)
    }

    /// Reads the headers of a model's shards: those named by `model.safetensors.index.json`, else
    /// `model.safetensors`, else every `*.safetensors` except `not_a_shard`.
    ///
    /// # Errors
    /// As for [`SafetensorsSource::file`], and [`Error::File`] if there are no shards, two of them hold the same
    /// tensor, or the index names a shard outside of the directory or a tensor that its shard does not hold.
    pub fn directory(path: &Path, not_a_shard: Option<&Path>) -> Result<Self> {
        let index = read_index(path)?;
        let shards = match &index {
            Some(index) => index.values().collect::<BTreeSet<_>>().into_iter().map(|name| path.join(name)).collect(),
            None => find_shards(path, not_a_shard)?,
        };
        let mut source = Self::empty(path);
        for shard in shards {
            source.add(&shard)?;
        }
        for (name, shard) in index.iter().flatten() {
            let found = source.tensors.get(name).map(|located| source.files[located.file].path());
            if found != Some(&path.join(shard)) {
                let why = format!("says that tensor `{name}` is in {}, but it is not", shard.display());
                return Err(Error::File { path: path.join(INDEX_FILE), why });
            }
        }
        Ok(source)
    }

    fn empty(path: &Path) -> Self {
        Self { path: path.to_owned(), files: Vec::new(), tensors: HashMap::new() }
    }

    /// Opens one more file and adds its tensors.
    fn add(&mut self, path: &Path) -> Result<()> {
        let file = TensorFile::open(path)?;
        for (name, located) in read_header(&file, self.files.len())? {
            if let Some(other) = self.tensors.get(&name) {
                let why = format!("tensor `{name}` is also in {}", self.files[other.file].path().display());
                return Err(Error::File { path: path.to_owned(), why });
            }
            self.tensors.insert(name, located);
        }
        self.files.push(file);
        Ok(())
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
        Err(unfit(self.files[located.file].path(), name, expected(), Some(located.describe())))
    }

    /// The type of a tensor, if there is one.
    pub(crate) fn dtype(&self, name: &str) -> Option<Dtype> {
        self.tensors.get(name).map(|located| located.dtype)
    }

    /// A tensor's bytes, if it has this shape and type.
    pub(crate) fn bytes(&self, name: &str, shape: &[usize], dtype: Dtype) -> Result<Mmap> {
        self.lend(self.find(name, shape, &[dtype])?)
    }

    /// A tensor's bytes as they lie in its file.
    fn lend(&self, located: &Located) -> Result<Mmap> {
        self.files[located.file].lend(located.offset, located.bytes)
    }

    /// Whether both tensors are there and are the same in type, shape and every byte.
    pub(crate) fn same(&self, first: &str, second: &str) -> Result<bool> {
        let (Some(first), Some(second)) = (self.tensors.get(first), self.tensors.get(second)) else {
            return Ok(false);
        };
        let alike = (first.dtype, &first.shape) == (second.dtype, &second.shape);
        Ok(alike && self.lend(first)?[..] == self.lend(second)?[..])
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
        let located = self.find(name, shape, FLOATS)?;
        Ok(floats(&self.lend(located)?, located.dtype))
    }

    fn read_one_of(&self, name: &str, shape: [usize; 3], index: usize) -> Result<Vec<f32>> {
        let located = self.find(name, &shape, FLOATS)?;
        let [matrices, ..] = shape;
        if index >= matrices {
            let expected = format!("{shape:?}, of which number {index}");
            return Err(unfit(self.files[located.file].path(), name, expected, Some(located.describe())));
        }
        // The header says so many bytes for all of them, which are alike.
        let bytes = located.bytes / matrices;
        let part = self.files[located.file].lend(located.offset + (index * bytes) as u64, bytes)?;
        Ok(floats(&part, located.dtype))
    }

    fn read_integers(&self, name: &str, shape: &[usize]) -> Result<Vec<i64>> {
        let located = self.find(name, shape, &[Dtype::U8, Dtype::I32, Dtype::I64])?;
        let bytes = self.lend(located)?;
        Ok(match located.dtype {
            Dtype::U8 => bytes.iter().map(|&byte| i64::from(byte)).collect(),
            Dtype::I32 => decode(&bytes, |raw| i64::from(i32::from_le_bytes(raw))),
            _ => decode(&bytes, i64::from_le_bytes),
        })
    }
}

/// The types whose numbers are read as they are.
const FLOATS: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::BF16];

/// The numbers of one of [`FLOATS`].
fn floats(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    match dtype {
        Dtype::F16 => decode(bytes, |raw| f16::from_le_bytes(raw).to_f32()),
        Dtype::BF16 => decode(bytes, |raw| bf16::from_le_bytes(raw).to_f32()),
        _ => decode(bytes, f32::from_le_bytes),
    }
}

fn decode<const N: usize, T>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&raw| number(raw)).collect()
}

/// Reads and checks one file's header: afterwards every tensor's byte range lies inside the file and has the
/// length that its shape and type ask for. `number` is the file's place among those of the source.
fn read_header(file: &TensorFile, number: usize) -> Result<Vec<(String, Located)>> {
    let malformed = |why: String| Error::File { path: file.path().to_owned(), why };
    let file_len = file.len();
    let too_short = || malformed(format!("is {file_len} bytes long, too short for a safetensors file"));
    if file_len < 8 {
        return Err(too_short());
    }
    let header_len = file.lend(0, 8)?.first_chunk().copied().map(u64::from_le_bytes).ok_or_else(too_short)?;
    if header_len > MAX_HEADER_BYTES.min(file_len - 8) {
        let why = format!("claims a safetensors header of {header_len} bytes in a file of {file_len} bytes");
        return Err(malformed(why));
    }
    let header = file.lend(8, header_len as usize)?;
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
            file: number,
            offset: data + start as u64,
            bytes: end - start,
            dtype: info.dtype,
            shape: info.shape.clone(),
        };
        (name, located)
    });
    Ok(located.collect())
}

/// The map from tensor to shard, if the directory has one. Shards are named by their path inside the directory.
fn read_index(directory: &Path) -> Result<Option<HashMap<String, PathBuf>>> {
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
    let mut shards = HashMap::new();
    for (tensor, name) in index.weight_map {
        let Some(shard) = inside(&name) else {
            return Err(Error::File { path, why: format!("names a shard outside of its directory: `{name}`") });
        };
        shards.insert(tensor, shard);
    }
    Ok(Some(shards))
}

/// The path without its `.` components, if it leads to something inside the directory that it is relative to: a
/// downloaded index must not make us open files elsewhere. `..` is refused wherever it stands, since behind a
/// symbolic link it leads anywhere.
fn inside(name: &str) -> Option<PathBuf> {
    let components = Path::new(name).components().filter(|part| *part != Component::CurDir);
    let plain = components.map(|part| matches!(part, Component::Normal(_)).then_some(part));
    plain.collect::<Option<PathBuf>>().filter(|path| !path.as_os_str().is_empty())
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
