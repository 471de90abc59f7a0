//! Which modules of a crate name which others, read from its sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, Macro, UseTree};

use super::Arrows;

/// A module's path from the crate's root, which has none.
type Module = Vec<String>;

/// The sources of a crate.
pub struct Crate {
    /// Each module that is a file, with its path from the folder, but for those that are compiled in tests only.
    files: BTreeMap<Module, (String, File)>,
    /// The names that the root passes on, and the modules they are of.
    passed_on: BTreeMap<String, Module>,
}

impl Crate {
    /// Reads every `.rs` file below a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        collect(folder, folder, &mut files)?;
        Self::parse(files)
    }

    /// Parses files, given by their paths from the crate's `src`.
    pub fn parse(files: BTreeMap<String, String>) -> Result<Self> {
        let mut parsed = BTreeMap::new();
        for (path, text) in files {
            let file = syn::parse_file(&text).with_context(|| format!("cannot parse {path}"))?;
            parsed.insert(module_of(&path), (path, file));
        }
        // A program beside a library names it as another crate would; one without is the root itself.
        if let Some(program) = parsed.remove(&split("main")) {
            parsed.entry(Module::new()).or_insert(program);
        }
        let in_tests: BTreeSet<Module> =
            parsed.iter().flat_map(|(module, (_, file))| test_modules(module, file)).collect();
        parsed.retain(|module, _| !in_tests.iter().any(|test| module.starts_with(test)));
        let mut source = Self { files: parsed, passed_on: BTreeMap::new() };
        if let Some((_, root)) = source.files.get(&Module::new()) {
            let mut names = Names::new(Module::new(), source.children(&[]));
            for item in &root.items {
                // Private ones too: what the root names, every module below it may name as the root's.
                if let Item::Use(item) = item {
                    names.visit_item_use(item);
                }
            }
            ensure!(!names.has_globs, "the root passes on everything of a module: which names it has cannot be read");
            let named = names.found.into_iter().filter(|path| path.len() > 1);
            source.passed_on = named.filter_map(|path| Some((path.last()?.clone(), path))).collect();
            source.passed_on.extend(names.renamed);
        }
        Ok(source)
    }

    /// The modules right below the root.
    pub fn top_modules(&self) -> BTreeSet<String> {
        self.children(&[])
    }

    /// Whether there is a module of this name, as in `exec::warp`.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(&split(name))
    }

    /// The arrows between the modules of these names. What lies in none of them (the root's own code) has no arrows.
    pub fn arrows(&self, drawn: &BTreeSet<&str>) -> Arrows {
        let drawn: Vec<Module> = drawn.iter().map(|name| split(name)).collect();
        let around = |module: &[String]| {
            drawn.iter().filter(|drawn| module.starts_with(drawn)).max_by_key(|drawn| drawn.len()).cloned()
        };
        let mut arrows = Arrows::new();
        for (module, (path, file)) in &self.files {
            let Some(from) = around(module) else { continue };
            let mut names = Names::new(module.clone(), self.children(module));
            names.visit_file(file);
            names.found.extend(names.renamed.into_values());
            for named in names.found {
                let passed_on = named.first().and_then(|first| self.passed_on.get(first));
                if let Some(to) = around(passed_on.unwrap_or(&named))
                    && to != from
                {
                    arrows.entry((from.join("::"), to.join("::"))).or_insert_with(|| path.clone());
                }
            }
        }
        arrows
    }

    /// The modules right below another that are files.
    fn children(&self, module: &[String]) -> BTreeSet<String> {
        let below = self.files.keys().filter(|path| path.len() == module.len() + 1 && path.starts_with(module));
        below.filter_map(|path| path.last().cloned()).collect()
    }
}

fn collect(folder: &Path, root: &Path, files: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, root, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            files.insert(name, text);
        }
    }
    Ok(())
}

/// The module that a file is.
fn module_of(path: &str) -> Module {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let mut module: Module = path.split('/').map(String::from).collect();
    if module.last().is_some_and(|last| last == "mod") || path == "lib" {
        module.pop();
    }
    module
}

fn split(name: &str) -> Module {
    name.split("::").map(String::from).collect()
}

/// The modules that a file declares for tests only.
fn test_modules(module: &[String], file: &File) -> Vec<Module> {
    let declared = file.items.iter().filter_map(|item| match item {
        Item::Mod(item) if only_in_tests(&item.attrs) => Some(item.ident.to_string()),
        _ => None,
    });
    declared.map(|name| [module, &[name]].concat()).collect()
}

/// Whether attributes leave an item out of everything but tests: `cfg(test)`, or `cfg(all(test, ..))`.
fn only_in_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let mut words = match &attribute.meta {
            syn::Meta::List(list) => list.tokens.clone().into_iter(),
            _ => return false,
        };
        match (words.next(), words.next()) {
            (Some(TokenTree::Ident(word)), None) => word == "test",
            (Some(TokenTree::Ident(word)), Some(TokenTree::Group(all))) => {
                word == "all"
                    && all.stream().into_iter().any(|word| matches!(word, TokenTree::Ident(word) if word == "test"))
            }
            _ => false,
        }
    })
}

/// Collects the paths that a module names, from the crate's root on.
struct Names {
    module: Module,
    /// Modules that it names without a prefix.
    children: BTreeSet<String>,
    found: BTreeSet<Module>,
    /// What it gives another name.
    renamed: BTreeMap<String, Module>,
    /// Whether it takes in all names of a module of its crate.
    has_globs: bool,
}

impl Names {
    fn new(module: Module, children: BTreeSet<String>) -> Self {
        Self { module, children, found: BTreeSet::new(), renamed: BTreeMap::new(), has_globs: false }
    }

    /// The path from the crate's root on; `None` of another crate's, and of a name that a `use` has brought in.
    fn resolve(&self, path: &[String]) -> Option<Module> {
        let first = path.first()?;
        if !["crate", "self", "super"].contains(&first.as_str()) && !self.children.contains(first) {
            return None;
        }
        let mut resolved = self.module.clone();
        for word in path {
            match word.as_str() {
                "crate" => resolved.clear(),
                "self" => {}
                "super" => drop(resolved.pop()),
                name => resolved.push(name.into()),
            }
        }
        Some(resolved)
    }

    fn add(&mut self, path: &[String]) {
        self.found.extend(self.resolve(path));
    }

    fn add_tree(&mut self, prefix: &mut Vec<String>, tree: &UseTree) {
        let depth = prefix.len();
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_tree(prefix, &path.tree);
            }
            UseTree::Name(name) => {
                prefix.extend(Some(name.ident.to_string()).filter(|name| name != "self" || depth == 0));
                self.add(prefix);
            }
            UseTree::Rename(name) => {
                prefix.push(name.ident.to_string());
                self.renamed.extend(self.resolve(prefix).map(|path| (name.rename.to_string(), path)));
            }
            UseTree::Glob(_) => {
                self.has_globs |= self.resolve(prefix).is_some();
                self.add(prefix);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(prefix, tree)),
        }
        prefix.truncate(depth);
    }

    /// Paths among the words of a macro's arguments, which are no syntax yet.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(word) => {
                    if colons != 2 {
                        self.add(&std::mem::take(&mut path));
                    }
                    path.push(word.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.add(&std::mem::take(&mut path));
                    colons = 0;
                    self.add_tokens(group.stream());
                }
                _ => {
                    self.add(&std::mem::take(&mut path));
                    colons = 0;
                }
            }
        }
        self.add(&path);
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if only_in_tests(attributes) {
            return;
        }
        match item {
            Item::Mod(inner) => {
                // Its own names are one module deeper.
                self.module.push(inner.ident.to_string());
                let children = std::mem::take(&mut self.children);
                visit::visit_item_mod(self, inner);
                self.children = children;
                self.module.pop();
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&words);
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.add_tokens(list.tokens.clone());
        }
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.add_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}
