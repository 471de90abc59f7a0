//! Cases in files, for other implementations to be held against.

use std::fs;
use std::path::{Path, PathBuf};

use latent_attention::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{SafeTensorError, SafeTensors};

use crate::case::{Case, Kind};
use crate::settings::Settings;
use crate::tensors::{HostTensor, Tensors};

/// The metadata's one key, whose value is a JSON object. (The format keeps keys in no order, and the same seed should
/// make the same bytes.)
const METADATA: &str = "latent-attention";

/// A folder of cases that is being written. It appears under its name, with all that was added, when it is published;
/// if it never is, nothing is left.
#[derive(Debug)]
pub struct Dump {
    dir: PathBuf,
    partial: PathBuf,
    published: bool,
}

impl Dump {
    /// Begins a dump that is to become `dir`.
    ///
    /// # Errors
    /// [`Error::Config`] if there is something in `dir` already, or it has no name of its own (`..`); [`Error::Io`].
    pub fn create(dir: &Path) -> Result<Self> {
        let refused = |why: &str| Error::Config { what: format!("dump in {}", dir.display()), why: why.into() };
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(refused("there is something in it already"));
        }
        let name = dir.file_name().ok_or_else(|| refused("needs a folder with a name of its own"))?;
        let mut partial_name = std::ffi::OsString::from(".partial-");
        partial_name.push(name);
        let partial = dir.with_file_name(partial_name);
        let io = |cause| Error::Io { path: partial.clone(), cause };
        if partial.exists() {
            // What a run left that was killed.
            fs::remove_dir_all(&partial).map_err(io)?;
        }
        fs::create_dir_all(&partial).map_err(io)?;
        Ok(Self { dir: dir.into(), partial, published: false })
    }

    /// Writes one case.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] if it cannot be written.
    pub fn add(&mut self, case: &Case) -> Result<()> {
        let path = file(&self.partial, case.kind());
        let metadata = serde_json::to_string(&case.settings)
            .map_err(|error| Error::File { path: path.clone(), why: error.to_string() })?;
        let metadata = Some([(METADATA.to_owned(), metadata)].into());
        let views = case
            .tensors
            .iter()
            .map(|(name, tensor)| Ok((name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)?)));
        let bytes = views
            .collect::<std::result::Result<Vec<_>, SafeTensorError>>()
            .and_then(|views| safetensors::serialize(views, metadata))
            .map_err(|error| Error::File { path: path.clone(), why: error.to_string() })?;
        fs::write(&path, bytes).map_err(|cause| Error::Io { path, cause })
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn publish(mut self) -> Result<()> {
        let io = |cause| Error::Io { path: self.dir.clone(), cause };
        if self.dir.exists() {
            fs::remove_dir(&self.dir).map_err(io)?;
        }
        fs::rename(&self.partial, &self.dir).map_err(io)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        if !self.published {
            // The error that led here matters more than one of cleaning up.
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

/// The cases that a dump holds, read one by one, and those that it does not hold.
///
/// # Errors
/// [`Error::File`] if it holds none.
pub fn read_dump(dir: &Path) -> Result<(impl Iterator<Item = Result<Case>>, Vec<Kind>)> {
    let (there, absent): (Vec<_>, Vec<_>) = Kind::ALL.into_iter().partition(|&kind| file(dir, kind).exists());
    if there.is_empty() {
        let why = format!("holds none of the files of a dump, like {}.safetensors", Kind::ALL[0].name());
        return Err(Error::File { path: dir.into(), why });
    }
    let dir = dir.to_owned();
    Ok((there.into_iter().map(move |kind| read(&dir, kind)), absent))
}

fn file(dir: &Path, kind: Kind) -> PathBuf {
    dir.join(kind.name()).with_extension("safetensors")
}

/// Reads one case. What its tensors hold shows when it is checked.
fn read(dir: &Path, kind: Kind) -> Result<Case> {
    let path = file(dir, kind);
    let malformed = |why: String| Error::File { path: path.clone(), why };
    let bytes = fs::read(&path).map_err(|cause| Error::Io { path: path.clone(), cause })?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| malformed(error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| malformed(error.to_string()))?;
    let settings = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA));
    let settings = settings.ok_or_else(|| malformed(format!("has no metadata `{METADATA}`")))?;
    let settings: Settings =
        serde_json::from_str(settings).map_err(|error| malformed(format!("metadata `{METADATA}`: {error}")))?;
    if settings.case != kind {
        return Err(malformed(format!("says that it is {}", settings.case.name())));
    }
    settings.check().map_err(|error| malformed(error.to_string()))?;
    let tensors = file.iter().map(|(name, tensor)| {
        let copy = HostTensor { dtype: tensor.dtype(), shape: tensor.shape().to_vec(), bytes: tensor.data().to_vec() };
        (name.to_owned(), copy)
    });
    let by_name = tensors.collect();
    Ok(Case { operation: kind.operation(), settings, tensors: Tensors::new(path, by_name) })
}
