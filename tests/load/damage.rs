//! Damaged files: always an error or a value, never a panic.

use std::path::Path;

use proptest::prelude::*;

use super::fixture::*;

/// Lengths to cut a file at: every one within the header, some within the data.
fn cuts(header: usize, file: usize) -> impl Iterator<Item = usize> {
    (0..header.min(600)).chain((header.min(600)..file).step_by(769)).chain(file.saturating_sub(40)..file)
}

fn safetensors_header(bytes: &[u8]) -> usize {
    8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize
}

fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("a writable file");
}

#[test]
fn a_safetensors_file_cut_short_anywhere_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    write_model(dir.path(), &llama_config(), &llama());
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).expect("read");
    for length in cuts(safetensors_header(&bytes), bytes.len()) {
        overwrite(&path, &bytes[..length]);
        let error = latent_attention::load::open(dir.path()).expect_err("cut short").to_string();
        assert!(error.contains("model.safetensors"), "{error}");
    }
}

#[test]
fn a_configuration_cut_short_anywhere_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    write_model(dir.path(), &llama_config(), &llama());
    let path = dir.path().join("config.json");
    let bytes = std::fs::read(&path).expect("read");
    for length in 0..bytes.len() {
        overwrite(&path, &bytes[..length]);
        latent_attention::load::open(dir.path()).expect_err("cut short");
    }
}

#[test]
fn a_huge_header_length_is_refused_without_allocating() {
    let dir = tempfile::tempdir().expect("a directory");
    write_model(dir.path(), &llama_config(), &llama());
    let path = dir.path().join("model.safetensors");
    for length in [u64::MAX, 1 << 40, 99_000_000] {
        overwrite(&path, &[&length.to_le_bytes()[..], b"{}"].concat());
        let error = latent_attention::load::open(dir.path()).expect_err("too long").to_string();
        assert!(error.contains(&length.to_string()), "{error}");
    }
}

#[test]
fn a_file_cut_off_after_it_was_opened_is_an_error_and_one_that_is_replaced_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    write_model(dir.path(), &llama_config(), &llama());
    check_changes(dir.path(), &dir.path().join("model.safetensors"));
}

/// Opens a model, then replaces its file, then cuts the file off that is open.
fn check_changes(model: &Path, path: &Path) {
    let checkpoint = latent_attention::load::open(model).expect("a valid model");
    let expected = checkpoint.embedding().expect("read");
    let other = path.with_extension("new");
    overwrite(&other, b"another model");
    let kept = path.with_extension("old");
    std::fs::rename(path, &kept).expect("renamed");
    std::fs::rename(&other, path).expect("renamed");
    assert_eq!(checkpoint.embedding().expect("read"), expected);

    let file = std::fs::OpenOptions::new().write(true).open(&kept).expect("opened");
    let len = file.metadata().expect("a length").len();
    file.set_len(len / 4).expect("cut off");
    let error = checkpoint.block(1).expect_err("cut off").to_string();
    assert!(error.contains(&format!("{} bytes long, it was {len} bytes long", len / 4)), "{error}");
}

proptest! {
    #[test]
    fn random_bytes_in_a_safetensors_header_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        write_model(dir.path(), &llama_config(), &llama());
        let path = dir.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).expect("read");
        let header = safetensors_header(&bytes);
        for (index, value) in changes {
            bytes[index.index(header)] = value;
        }
        overwrite(&path, &bytes);
        let _ = read_everything(dir.path());
    }

    #[test]
    fn random_bytes_in_a_configuration_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), b' '..b'~'), 1..4)
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        write_model(dir.path(), &llama_config(), &llama());
        let path = dir.path().join("config.json");
        let mut bytes = std::fs::read(&path).expect("read");
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        overwrite(&path, &bytes);
        let _ = read_everything(dir.path());
    }
}

#[cfg(feature = "gguf")]
mod gguf {
    use super::super::gguf::{Gguf, write_file};
    use super::super::{deepseek, experts, gguf_latent};
    use super::*;

    /// Bytes of tensors at the end of the file; everything before is header.
    fn data_len() -> usize {
        llama().0.values().map(|(_, _, bytes)| bytes.len().next_multiple_of(32)).sum()
    }

    #[test]
    fn a_gguf_file_cut_short_anywhere_is_an_error() {
        let (_dir, path) = write_file(&Gguf::of("llama", &llama()));
        let bytes = std::fs::read(&path).expect("read");
        for length in cuts(bytes.len() - data_len(), bytes.len()) {
            overwrite(&path, &bytes[..length]);
            let error = latent_attention::load::open(&path).expect_err("cut short").to_string();
            assert!(error.contains("model.gguf"), "{error}");
        }
    }

    #[test]
    fn a_file_cut_off_after_it_was_opened_is_an_error_and_one_that_is_replaced_changes_nothing() {
        let (_dir, path) = write_file(&Gguf::of("llama", &llama()));
        check_changes(&path, &path);
    }

    /// Bytes of tensors that are read head by head and expert by expert.
    fn latent() -> (Vec<u8>, usize) {
        let file = gguf_latent::gguf(&experts::model(true), Some(deepseek::QUERY_RANK), Some(true));
        let data =
            file.tensors.iter().map(|(_, tensor)| tensor.storage_size_in_bytes().next_multiple_of(32)).sum::<usize>();
        let (_dir, path) = write_file(&file);
        let bytes = std::fs::read(&path).expect("read");
        let header = bytes.len() - data;
        (bytes, header)
    }

    #[test]
    fn a_latent_gguf_file_cut_short_anywhere_is_an_error() {
        let ((bytes, header), dir) = (latent(), tempfile::tempdir().expect("a directory"));
        let path = dir.path().join("model.gguf");
        overwrite(&path, &bytes);
        read_everything(&path).expect("a valid model");
        for length in cuts(header, bytes.len()) {
            overwrite(&path, &bytes[..length]);
            let error = latent_attention::load::open(&path).expect_err("cut short").to_string();
            assert!(error.contains("model.gguf"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_in_the_header_of_a_latent_gguf_file_never_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
        ) {
            let ((mut bytes, header), dir) = (latent(), tempfile::tempdir().expect("a directory"));
            for (index, value) in changes {
                bytes[index.index(header)] = value;
            }
            let path = dir.path().join("model.gguf");
            overwrite(&path, &bytes);
            let _ = read_everything(&path);
        }

        #[test]
        fn random_bytes_in_a_gguf_header_never_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
        ) {
            let (_dir, path) = write_file(&Gguf::of("llama", &llama()));
            let mut bytes = std::fs::read(&path).expect("read");
            let header = bytes.len() - data_len();
            for (index, value) in changes {
                bytes[index.index(header)] = value;
            }
            overwrite(&path, &bytes);
            let _ = read_everything(&path);
        }
    }
}
