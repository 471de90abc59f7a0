//! Which images are still those of their sources. Compiling a kernel file takes up to a minute for each architecture,
//! and most changes are to a single one.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// What a file includes of our own begins so: in quotes, and relative to the file.
const INCLUDE: &str = "#include \"";

/// All that an image is made from: the command, who runs it, and the text of the file and of everything it includes.
/// Equal recipes make equal images. Headers of the compiler belong to it and are not listed.
pub fn recipe(compiler: &str, command: &str, source: &Path) -> io::Result<String> {
    let mut recipe = format!("{compiler}\n{command}\n");
    let mut files = vec![source.to_path_buf()];
    let mut next = 0;
    while let Some(file) = files.get(next).cloned() {
        next += 1;
        let text = fs::read_to_string(&file)?;
        for included in includes(&text).map(|name| plain(&file.with_file_name(name))) {
            if !files.contains(&included) {
                files.push(included);
            }
        }
        recipe.extend([&format!("\n{}\n", file.display()), text.as_str()]);
    }
    Ok(recipe)
}

/// Whether an image is there that was made by this recipe.
pub fn is_made(image: &Path, recipe: &str) -> bool {
    image.is_file() && fs::read_to_string(note(image)).is_ok_and(|made_by| made_by == recipe)
}

/// Says that the image is about to be made: one of a run that is broken off is none.
pub fn begin(image: &Path) -> io::Result<()> {
    match fs::remove_file(note(image)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Says that the image has been made by the recipe.
pub fn finish(image: &Path, recipe: &str) -> io::Result<()> {
    fs::write(note(image), recipe)
}

/// Where the recipe of an image is kept.
fn note(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".recipe");
    name.into()
}

/// The files that a text includes.
fn includes(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix(INCLUDE)?.split('"').next())
}

/// The path without `..`, so that a file has one name.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == std::path::Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}
