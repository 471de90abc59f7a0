//! Which images are still those of their sources. Compiling a kernel file takes up to a minute for each architecture,
//! most changes are to a single one, and Cargo gives each way of building the crate a folder of its own.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{fs, io, process};

/// Names a folder in which builds with folders of their own share their images.
pub const SHARED: &str = "LATENT_ATTENTION_IMAGES";

/// What a file includes of our own begins so: in quotes, and relative to the file.
const INCLUDE: &str = "#include \"";

/// All that an image is made from: the command, who runs it, and the text of the file and of everything it includes.
/// Equal recipes make equal images. Headers of the compiler belong to it and are not listed. Where the sources lie is
/// left to the command to say.
pub fn recipe(compiler: &str, command: &str, source: &Path) -> io::Result<String> {
    let mut recipe = format!("{compiler}\n{command}\n");
    let folder = source.parent().unwrap_or(Path::new(""));
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
        let name = file.strip_prefix(folder).unwrap_or(&file);
        recipe.extend([&format!("\n{}\n", name.display()), text.as_str()]);
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

/// A folder of images that builds share. It only saves time: what goes wrong in it leaves the image to the compiler.
pub struct Shared {
    folder: Option<PathBuf>,
}

impl Shared {
    /// None is shared without a folder.
    pub fn new(folder: &Path) -> Self {
        let named = !folder.as_os_str().is_empty();
        Self { folder: named.then(|| folder.into()) }
    }

    /// Takes the image that was made by the recipe, in whichever build, and says whether there is one.
    pub fn take(&self, image: &Path, recipe: &str) -> bool {
        let Some(kept) = self.kept(image, recipe) else { return false };
        // Another build may put another image in its place meanwhile. It takes the note away first.
        is_made(&kept, recipe)
            && begin(image).is_ok()
            && fs::copy(&kept, image).is_ok()
            && is_made(&kept, recipe)
            && finish(image, recipe).is_ok()
    }

    /// Keeps an image for other builds.
    pub fn put(&self, image: &Path, recipe: &str) -> io::Result<()> {
        let Some(kept) = self.kept(image, recipe) else { return Ok(()) };
        let folder = kept.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(folder)?;
        let unfinished = folder.join(format!("unfinished.{}.{}", process::id(), name(image)));
        fs::copy(image, &unfinished)?;
        begin(&kept)?;
        fs::rename(&unfinished, &kept)?;
        fs::write(&unfinished, recipe)?;
        fs::rename(&unfinished, note(&kept))
    }

    /// Where an image is kept: apart for each compiler and command, so that those used in turn keep theirs, while an
    /// edit of a source takes its predecessor's place.
    fn kept(&self, image: &Path, recipe: &str) -> Option<PathBuf> {
        let mut hasher = DefaultHasher::new();
        let maker = recipe.lines().take(2);
        maker.for_each(|line| line.hash(&mut hasher));
        Some(self.folder.as_ref()?.join(format!("{:016x}", hasher.finish())).join(name(image).as_ref()))
    }
}

/// A file's name without its folder.
fn name(image: &Path) -> std::borrow::Cow<'_, str> {
    image.file_name().unwrap_or_default().to_string_lossy()
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
