//! Whether the sources are built as `docs/architecture.md` says: arrows point down only.
//!
//! The document draws each crate as a fenced block, one floor a line, the highest first:
//!
//! ````text
//! ```floors latent-attention src
//! layer
//! ops
//! device reference
//! ```
//! ````
//!
//! A module may name modules of lower floors in its code, and none of its own floor or of a higher one. A module that
//! is not drawn belongs to the nearest one around it that is; every module right below the crate's root has to be
//! drawn. The block `floors workspace` draws the workspace's crates in the same way.
//!
//! Arrows are read from imports, paths, attributes and the arguments of macros. Those are missed that only a compiler sees:
//! of names that a glob import brings in, of groups of imports inside a macro's arguments, and of what a macro makes.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::imports::Crate;
use crate::process;

/// One of the document's blocks.
#[derive(Debug, PartialEq)]
struct Picture {
    /// The crate's name, or `workspace`.
    name: String,
    /// The folder of its sources, from the workspace's root; none for the workspace.
    folder: Option<String>,
    /// Names by floor, the highest first.
    floors: Vec<Vec<String>>,
}

/// An arrow from a module, or a crate, to one that it names, and where it does.
type Arrows = BTreeMap<(String, String), String>;

/// Fails if a source file has an arrow that the pictures do not allow.
pub fn check() -> Result<()> {
    let document = crate::root().join("docs/architecture.md");
    let text = fs::read_to_string(&document).with_context(|| format!("cannot read {}", document.display()))?;
    let pictures = pictures(&text);
    let mut faults = Vec::new();
    for picture in &pictures {
        let twice = picture.floors.iter().map(Vec::len).sum::<usize>() - picture.names().len();
        ensure!(twice == 0, "{} draws {twice} modules of `{}` twice", document.display(), picture.name);
        match &picture.folder {
            Some(folder) => {
                let source = Crate::read(&crate::root().join(folder)).context(picture.name.clone())?;
                let drawn = picture.names();
                let missing = source.top_modules().into_iter().filter(|module| !drawn.contains(module.as_str()));
                faults.extend(missing.map(|module| format!("{}: module `{module}` is not drawn", picture.name)));
                let unknown = drawn.iter().filter(|module| !source.has(module));
                faults.extend(unknown.map(|module| format!("{}: there is no module `{module}`", picture.name)));
                faults.extend(picture.faults(&source.arrows(&drawn)));
            }
            None => faults.extend(picture.faults(&crates()?)),
        }
    }
    for name in ["workspace", "latent-attention", "ptx-sim"] {
        ensure!(pictures.iter().any(|picture| picture.name == name), "{} draws no `{name}`", document.display());
    }
    if !faults.is_empty() {
        bail!("the code does not match {}:\n{}", document.display(), faults.join("\n"));
    }
    Ok(())
}

/// The blocks of a Markdown text.
fn pictures(text: &str) -> Vec<Picture> {
    let mut pictures = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(title) = line.strip_prefix("```floors ") else { continue };
        let mut words = title.split_whitespace().map(String::from);
        let floors = lines.by_ref().take_while(|line| *line != "```");
        let floors: Vec<Vec<String>> = floors.map(|line| line.split_whitespace().map(String::from).collect()).collect();
        pictures.push(Picture { name: words.next().unwrap_or_default(), folder: words.next(), floors });
    }
    pictures
}

impl Picture {
    fn names(&self) -> BTreeSet<&str> {
        self.floors.iter().flatten().map(String::as_str).collect()
    }

    /// What is wrong with these arrows, in one line each. Without an arrow up or along a floor there is no circle.
    fn faults(&self, arrows: &Arrows) -> Vec<String> {
        let floor = |name: &str| self.floors.iter().position(|floor| floor.iter().any(|module| module == name));
        let mut faults = Vec::new();
        for ((from, to), place) in arrows {
            match (floor(from), floor(to)) {
                (Some(high), Some(low)) if high < low => {}
                (Some(high), Some(low)) if high > low => {
                    faults.push(format!("{}: `{from}` names `{to}`, which is above it: {place}", self.name));
                }
                (Some(_), Some(_)) => {
                    faults.push(format!("{}: `{from}` names `{to}` of the same floor: {place}", self.name));
                }
                _ => faults.push(format!("{}: `{from}` or `{to}` is not drawn: {place}", self.name)),
            }
        }
        faults
    }
}

/// The arrows between the workspace's crates. Tests and examples may look up: cargo allows them to.
fn crates() -> Result<Arrows> {
    let mut command = process::cargo(["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_str(&process::output(&mut command)?)?;
    let packages = metadata["packages"].as_array().context("cargo lists no packages")?;
    let mut arrows = Arrows::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let root = package["manifest_path"].as_str().map(Path::new).and_then(Path::parent);
        for dependency in package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let ours = dependency["path"].as_str().is_some_and(|path| root != Some(Path::new(path)));
            if let (true, true, Some(other)) = (ours, dependency["kind"] != "dev", dependency["name"].as_str()) {
                arrows.insert((name.into(), other.into()), format!("{name}'s Cargo.toml"));
            }
        }
    }
    Ok(arrows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with the files of a crate under this picture.
    fn faults(floors: &str, files: &[(&str, &str)]) -> Vec<String> {
        let picture = pictures(&format!("text\n```floors house src\n{floors}\n```\nmore")).remove(0);
        let source = Crate::parse(files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect()).unwrap();
        picture.faults(&source.arrows(&picture.names()))
    }

    const ROOT: (&str, &str) = ("lib.rs", "pub mod cellar;\npub mod roof;\npub use cellar::Wine;");

    #[test]
    fn arrows_down_are_fine() {
        let roof = ("roof.rs", "use crate::cellar::Wine; fn f() { crate::cellar::drink(Wine) }");
        assert!(faults("roof\ncellar", &[ROOT, roof, ("cellar.rs", "pub struct Wine;")]).is_empty());
    }

    #[test]
    fn an_arrow_up_is_found_in_imports_paths_types_and_macros() {
        for code in [
            "use crate::roof::Tile;",
            "use crate::{Wine, roof::{self, Tile}};",
            "use super::roof;",
            "fn f() -> crate::roof::Tile { todo!() }",
            "fn f() { println!(\"{}\", crate::roof::COUNT) }",
            "mod deep { fn f() { super::super::roof::f() } }",
            "impl crate::roof::Tiled for Wine {}",
            "use crate::roof as attic;",
            "#[derive(crate::roof::Tiled)] struct Barrel;",
        ] {
            let found = faults("roof\ncellar", &[ROOT, ("cellar.rs", code), ("roof.rs", "")]);
            assert_eq!(found.len(), 1, "{code}: {found:?}");
            assert!(found[0].starts_with("house: `cellar` names `roof`, which is above it: cellar.rs"), "{found:?}");
        }
    }

    #[test]
    fn what_the_root_passes_on_counts_as_its_own_module() {
        for passed_on in ["pub use cellar::Wine;", "pub(crate) use cellar::Wine;", "use crate::cellar::Wine;"] {
            let root = format!("pub mod cellar;\npub mod roof;\n{passed_on}");
            let files = [("lib.rs", root.as_str()), ("roof.rs", "use crate::Wine;"), ("cellar.rs", "pub struct Wine;")];
            let found = faults("cellar\nroof", &files);
            assert_eq!(found, ["house: `roof` names `cellar`, which is above it: roof.rs"]);
        }
    }

    #[test]
    fn the_root_is_the_library_and_its_names_may_be_others() {
        let root = "mod cellar; mod roof; pub use cellar::Wine as Drink;";
        let code = ["use crate::Drink;", "fn f() -> self::super::Drink { todo!() }"];
        for code in code {
            let files =
                [("lib.rs", root), ("main.rs", "mod roof;"), ("roof.rs", code), ("cellar.rs", "pub struct Wine;")];
            assert_eq!(faults("cellar\nroof", &files), ["house: `roof` names `cellar`, which is above it: roof.rs"]);
        }
        let hidden = [("lib.rs", "mod cellar; pub use cellar::*;"), ("cellar.rs", "")];
        let files = hidden.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
        assert!(Crate::parse(files).is_err());
    }

    #[test]
    fn neighbours_do_not_name_each_other() {
        let found = faults("roof cellar", &[ROOT, ("roof.rs", "use crate::cellar::Wine;"), ("cellar.rs", "")]);
        assert_eq!(found, ["house: `roof` names `cellar` of the same floor: roof.rs"]);
    }

    #[test]
    fn a_module_within_another_is_drawn_on_its_own_if_its_name_says_so() {
        let files = [
            ("lib.rs", "mod roof;"),
            ("roof/mod.rs", "mod beam; mod tile; use tile::Tile; pub use self::beam::Beam;"),
            ("roof/beam.rs", "use super::tile::Tile;"),
            ("roof/tile.rs", "pub struct Tile;"),
        ];
        assert!(faults("roof", &files).is_empty());
        assert!(faults("roof\nroof::beam\nroof::tile", &files).is_empty());
        let found = faults("roof\nroof::tile\nroof::beam", &files);
        assert_eq!(found, ["house: `roof::beam` names `roof::tile`, which is above it: roof/beam.rs"]);
        let found = faults("roof::tile\nroof\nroof::beam", &files);
        assert!(found.iter().any(|fault| fault.contains("`roof` names `roof::tile`, which is above")), "{found:?}");
    }

    #[test]
    fn tests_may_look_up() {
        let cellar = "#[cfg(test)] mod tests { use crate::roof::Tile; } #[cfg(all(test, unix))] use crate::roof;";
        let files = [ROOT, ("cellar.rs", cellar), ("roof.rs", "")];
        assert!(faults("roof\ncellar", &files).is_empty());
        let files =
            [ROOT, ("cellar.rs", "#[cfg(test)] mod tests;"), ("cellar/tests.rs", "use crate::roof;"), ("roof.rs", "")];
        assert!(faults("roof\ncellar", &files).is_empty());
    }

    #[test]
    fn blocks_of_other_kinds_are_not_pictures() {
        let text = "```text\na\n```\n```floors workspace\ntop\nlow lower\n```\n";
        let floors = vec![vec!["top".into()], vec!["low".into(), "lower".into()]];
        assert_eq!(pictures(text), [Picture { name: "workspace".into(), folder: None, floors }]);
    }
}
