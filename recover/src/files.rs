//! Files that are whole or not there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Writes a file under another name beside its place, makes sure that it is on the disk, and renames it. Whatever happens
/// on the way (an error, a full disk, the end of the process), an earlier file of that name stays as it was.
///
/// # Errors
/// If `write` fails, or the file cannot be made or renamed; nothing partial is left then.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let partial = partial(path);
    let written = (|| {
        let mut file = File::create(&partial)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        anyhow::Ok(())
    })();
    if written.is_err() {
        // The error that led here matters more than one of cleaning up.
        let _ = fs::remove_file(&partial);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// The name under which a file is written.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_failure_leaves_the_earlier_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, |file| Ok(file.write_all(b"first")?)).unwrap();
        let error = replace(&path, |file| {
            file.write_all(b"sec")?;
            anyhow::bail!("the disk is full")
        });
        assert!(format!("{:#}", error.unwrap_err()).contains("the disk is full"));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(&folder.path().join("none/file"), |_| Ok(())).is_err());
    }
}
