//! The same model and text through llama.cpp, from an installed library that is loaded when it is asked for.
//!
//! Its C interface passes structures that grow from version to version. Both of those used here go through memory as large
//! as several of them, so the library's own size decides; what is set of them are the first fields, which have stood there
//! since 2024, and whether the library took them as meant is asked of it afterwards.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use latent_attention_lm::loss::loss_of_rows;
use libloading::Library;

use crate::speed::Contestant;

/// A structure of the library whose size is not known here, at most 512 bytes. Every calling convention of the systems that
/// llama.cpp runs on passes and returns structures of more than 16 bytes in memory, where a larger one is read and written
/// in its first bytes.
#[derive(Clone, Copy)]
#[repr(C)]
struct Opaque([u64; 64]);

/// `llama_batch`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Batch {
    count: i32,
    tokens: *mut i32,
    embeddings: *mut f32,
    positions: *mut i32,
    sequence_counts: *mut i32,
    sequences: *mut *mut i32,
    wants_logits: *mut i8,
}

type Log = extern "C" fn(c_int, *const c_char, *mut c_void);

extern "C" fn silent(_level: c_int, _text: *const c_char, _user: *mut c_void) {}

/// Declares the functions that are called, and how they are found.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        struct Functions { $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)* }

        impl Functions {
            /// # Safety
            /// The library must be llama.cpp's.
            unsafe fn of(library: &Library) -> Result<Self> {
                Ok(Self { $($name: {
                    let name = concat!(stringify!($name), "\0").as_bytes();
                    // SAFETY: these are the functions' types in llama.h, but for the structures' sizes (above).
                    *unsafe { library.get(name) }.with_context(|| format!("llama.cpp has no {}", stringify!($name)))?
                },)* })
            }
        }
    };
}

functions! {
    llama_log_set: fn(Log, *mut c_void);
    llama_backend_init: fn();
    llama_model_default_params: fn() -> Opaque;
    llama_context_default_params: fn() -> Opaque;
    llama_model_load_from_file: fn(*const c_char, Opaque) -> *mut c_void;
    llama_init_from_model: fn(*mut c_void, Opaque) -> *mut c_void;
    llama_set_n_threads: fn(*mut c_void, i32, i32);
    llama_n_ctx: fn(*const c_void) -> u32;
    llama_n_batch: fn(*const c_void) -> u32;
    llama_n_threads: fn(*mut c_void) -> i32;
    llama_model_get_vocab: fn(*const c_void) -> *const c_void;
    llama_vocab_n_tokens: fn(*const c_void) -> i32;
    llama_get_memory: fn(*const c_void) -> *mut c_void;
    llama_memory_clear: fn(*mut c_void, bool);
    llama_decode: fn(*mut c_void, Batch) -> i32;
    llama_get_logits_ith: fn(*mut c_void, i32) -> *mut f32;
    llama_free: fn(*mut c_void);
    llama_model_free: fn(*mut c_void);
}

/// A model in llama.cpp, with room for one sequence.
pub struct Llama {
    functions: Functions,
    model: *mut c_void,
    context: *mut c_void,
    vocabulary: usize,
    positions: usize,
    /// Unloaded last.
    _libraries: Vec<Library>,
}

impl Llama {
    /// Loads the library in `folder` and the model, for `positions` tokens at once, on so many threads.
    ///
    /// # Errors
    /// If there is no such library, or it does not do as it is told.
    pub fn open(folder: &Path, model: &Path, positions: usize, threads: usize) -> Result<Self> {
        let (own, compute) = (find(folder, "libllama.")?, find(folder, "libggml.")?);
        // SAFETY: loading runs the libraries' initialisers: the user has named a folder of llama.cpp's.
        let load =
            |path: &Path| unsafe { Library::new(path) }.with_context(|| format!("cannot load {}", path.display()));
        let (compute, own) = (load(&compute)?, load(&own)?);
        // SAFETY: as above.
        let functions = unsafe { Functions::of(&own)? };
        // SAFETY: the types are those of llama.h, and what is handed over outlives the calls.
        unsafe {
            (functions.llama_log_set)(silent, null_mut());
            // Variants for instruction sets are libraries of their own, of which the best one is chosen.
            if let Ok(load_all) =
                compute.get::<unsafe extern "C" fn(*const c_char)>(b"ggml_backend_load_all_from_path\0")
            {
                load_all(c_path(folder)?.as_ptr());
            }
            (functions.llama_backend_init)();
        }
        let mut llama = Self {
            functions,
            model: null_mut(),
            context: null_mut(),
            vocabulary: 0,
            positions,
            _libraries: vec![own, compute],
        };
        llama.load(model, u32::try_from(positions)?, i32::try_from(threads)?)?;
        Ok(llama)
    }

    fn load(&mut self, model: &Path, positions: u32, threads: i32) -> Result<()> {
        let (path, f) = (c_path(model)?, &self.functions);
        // SAFETY: as in `open`; the pointers are those that the library gave, and are not null.
        unsafe {
            self.model = (f.llama_model_load_from_file)(path.as_ptr(), (f.llama_model_default_params)());
            ensure!(!self.model.is_null(), "llama.cpp does not load {}", model.display());
            let mut parameters = (f.llama_context_default_params)();
            // The first two are counts of 32 bits, the tokens of the context and those of a batch, on little-endian CPUs.
            parameters.0[0] = u64::from(positions) | u64::from(positions) << 32;
            self.context = (f.llama_init_from_model)(self.model, parameters);
            ensure!(!self.context.is_null(), "llama.cpp makes no context of {positions} tokens");
            (f.llama_set_n_threads)(self.context, threads, threads);
            let (context, batch) = ((f.llama_n_ctx)(self.context), (f.llama_n_batch)(self.context));
            let used = (f.llama_n_threads)(self.context);
            ensure!(
                context >= positions && batch >= positions && used == threads,
                "this llama.cpp is not told what to do as others are: it was asked for {positions} tokens on {threads} \
                 threads, and has {context}, {batch} of them in a batch, on {used}"
            );
            self.vocabulary = usize::try_from((f.llama_vocab_n_tokens)((f.llama_model_get_vocab)(self.model)))?;
        }
        Ok(())
    }

    /// Forgets all tokens.
    fn forget(&mut self) {
        // SAFETY: the context is the library's own.
        unsafe { (self.functions.llama_memory_clear)((self.functions.llama_get_memory)(self.context), true) };
    }

    /// Reads tokens behind those before; logits are computed of all of them, or of the last.
    fn take_in(&mut self, tokens: &[u32], start: usize, all: bool) -> Result<()> {
        ensure!(start + tokens.len() <= self.positions, "llama.cpp has room for {} tokens", self.positions);
        let count = tokens.len();
        let mut ids: Vec<i32> = tokens.iter().map(|&token| token.cast_signed()).collect();
        let mut positions: Vec<i32> = (start..start + count).map(i32::try_from).collect::<Result<_, _>>()?;
        let mut counts = vec![1; count];
        let mut sequence = 0;
        let mut sequences = vec![&raw mut sequence; count];
        let mut wants: Vec<i8> = (0..count).map(|i| i8::from(all || i + 1 == count)).collect();
        let batch = Batch {
            count: i32::try_from(count)?,
            tokens: ids.as_mut_ptr(),
            embeddings: null_mut(),
            positions: positions.as_mut_ptr(),
            sequence_counts: counts.as_mut_ptr(),
            sequences: sequences.as_mut_ptr(),
            wants_logits: wants.as_mut_ptr(),
        };
        // SAFETY: all arrays have `count` elements and live until the call returns.
        let status = unsafe { (self.functions.llama_decode)(self.context, batch) };
        ensure!(status == 0, "llama.cpp failed to read {count} tokens (status {status})");
        Ok(())
    }

    /// The logits of a token of the last batch, of which they were wanted.
    fn logits(&self, index: usize) -> Result<&[f32]> {
        // SAFETY: the context is the library's own; it answers with null where there are no such logits.
        let logits: *const f32 = unsafe { (self.functions.llama_get_logits_ith)(self.context, i32::try_from(index)?) };
        ensure!(!logits.is_null(), "llama.cpp has no logits of token {index}");
        // SAFETY: the library keeps as many logits as its vocabulary has tokens until the next batch, which needs `self`.
        Ok(unsafe { std::slice::from_raw_parts(logits, self.vocabulary) })
    }
}

impl Contestant for Llama {
    fn name(&self) -> String {
        "llama.cpp, original, f16 cache".into()
    }

    fn read(&mut self, tokens: &[u32]) -> Result<f64> {
        self.forget();
        let (targets, read) = (&tokens[1..], &tokens[..tokens.len() - 1]);
        self.take_in(read, 0, true)?;
        let rows: Vec<&[f32]> = (0..read.len()).map(|i| self.logits(i)).collect::<Result<_>>()?;
        Ok((loss_of_rows(&rows, targets)? / targets.len() as f64).exp())
    }

    fn write(&mut self, prompt: &[u32], count: usize) -> Result<Duration> {
        self.forget();
        self.take_in(prompt, 0, false)?;
        let mut last = prompt.len() - 1;
        let started = Instant::now();
        for position in prompt.len()..prompt.len() + count {
            let logits = self.logits(last)?.iter().enumerate();
            let next = logits.max_by(|(_, a), (_, b)| a.total_cmp(b)).context("the vocabulary is empty")?.0;
            self.take_in(&[u32::try_from(next)?], position, false)?;
            last = 0;
        }
        Ok(started.elapsed())
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        // SAFETY: both are the library's own, or null, and nothing uses them afterwards.
        unsafe {
            if !self.context.is_null() {
                (self.functions.llama_free)(self.context);
            }
            if !self.model.is_null() {
                (self.functions.llama_model_free)(self.model);
            }
        }
    }
}

/// The library in `folder` whose file begins with `name`, which ends in a dot: `libllama.so`, `libllama.v0.5.0.so`.
fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("--llama {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.strip_prefix(name).is_some_and(|rest| rest.split('.').any(|part| ["so", "dylib"].contains(&part)))
    });
    // The same every time; the shortest is the one that links name.
    found.sort_unstable_by_key(|path| (path.as_os_str().len(), path.clone()));
    match found.into_iter().next() {
        Some(path) => Ok(path),
        None => bail!("--llama {}: there is no {name}so in this folder", folder.display()),
    }
}

/// A path as C has it.
fn c_path(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_by_name_and_missing_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = |name| find(folder.path(), name).unwrap_err().to_string();
        assert!(message("libllama.").ends_with("there is no libllama.so in this folder"), "{}", message("libllama."));
        for name in ["libllama-common.so", "libllama.v0.5.0.so", "libllama.so.0.5", "libllama.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(find(folder.path(), "libllama.").unwrap().file_name().unwrap(), "libllama.so.0.5");
        let none = find(&folder.path().join("no-such-folder"), "libllama.").unwrap_err().to_string();
        assert!(none.starts_with("--llama ") && none.contains("no-such-folder"), "{none}");
    }

    #[test]
    fn what_is_no_library_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libllama.so", "libggml.so"] {
            fs::write(folder.path().join(name), "not a library").unwrap();
        }
        let error = Llama::open(folder.path(), Path::new("model.gguf"), 8, 1).err().unwrap();
        assert!(error.to_string().contains("cannot load") && error.to_string().contains("libggml.so"), "{error}");
    }
}
