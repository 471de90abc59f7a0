//! Counting what layers cost: machine code from this build's PTX, trip counts from the simulator.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use latent_attention::device::Device;
use latent_attention::image::{Arch, ptx};
use latent_attention::ops::{DecodeTiles, DecodeVariant};
use latent_attention::splits::SplitCosts;
use latent_attention::sys::{self, COMBINE_BATCH};

use crate::counts::Evidence;
use crate::layer::{Layer, Merge, MergeKind, Survey};
use crate::machine::Machine;
use crate::measured::{KEPT, Kept};
use crate::models;
use crate::sass::parse::Function;
use crate::sass::repairs::needs_looking_at;
use crate::simulate::{self, Attention};
use crate::step::{Beside, Step};
use crate::tools::Tools;
use crate::work::{Launch, Measured, Shares, combine, measure, shares};

/// Tiles of the two launches that tell what a tile costs from what the rest does. Tiles take turns between two stages, so
/// that they differ by a whole number of turns; and with fewer than three there is no tile whose copies are all behind it.
pub const TILES: [usize; 2] = [3, 5];

/// Splits of two merges that tell what a batch of a few of them costs: whole batches.
pub const SPLITS: [usize; 2] = [8, 16];

/// The same of many.
pub const MANY_SPLITS: [usize; 2] = [COMBINE_BATCH as usize, 3 * COMBINE_BATCH as usize];

/// Tokens of the launch that tells what taking in one of many costs: all have the same share of it.
const APPENDED_TOKENS: usize = 64;

/// Registers of a multiprocessor, of every one that the library has kernels for.
const REGISTERS: usize = 65536;

/// Threads that a multiprocessor holds, and those of a block beside attention in a step of few tokens.
const MOST_THREADS: usize = 2048;
const STEP_THREADS: usize = sys::ABSORB_FEW_THREADS as usize;

/// Kernels' machine code, as it is needed.
#[derive(Debug)]
struct Code {
    tools: Tools,
    arch: Arch,
    /// The PTX that both the machine code and the simulator come from.
    ptx: Arch,
    functions: HashMap<String, Function>,
}

impl Code {
    fn new(tools: Tools, arch: Arch) -> Self {
        let ptx = if arch == Arch::Sm90a { Arch::Compute90a } else { Arch::Compute80 };
        Self { tools, arch, ptx, functions: HashMap::new() }
    }

    /// A kernel of a file of `csrc`.
    fn kernel(&mut self, file: &'static str, kernel: &str) -> Result<&Function> {
        match self.functions.entry(kernel.into()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let source = source(file, self.ptx)?;
                // Before it is assembled and simulated, which takes long: nobody has measured the rates of its products.
                ensure!(
                    !needs_looking_at(source, kernel),
                    "{kernel}: what wgmma and setmaxnreg cost is not measured yet"
                );
                Ok(place.insert(self.tools.machine_code(source, self.arch.name(), kernel)?))
            }
        }
    }

    /// The PTX of a file of `csrc`.
    fn source(&self, file: &'static str) -> Result<&'static str> {
        source(file, self.ptx)
    }
}

fn source(file: &'static str, arch: Arch) -> Result<&'static str> {
    ptx(file, arch).with_context(|| format!("this build has no PTX of csrc/{file}.cu: it was built without nvcc"))
}

/// Counts layers, each of them when it is asked for first.
#[derive(Debug)]
pub struct Surveyor {
    code: Code,
    device: Device,
    /// What was counted of variants.
    counted: HashMap<Counted, Apart>,
    found: Survey,
}

/// A model and a format, and of a variant what its counts depend on: the kernel, tokens of a tile, and tiles in shared
/// memory. How many blocks share a multiprocessor, and what splits are chosen by, changes nothing in a block.
type Counted = (String, String, &'static str, usize, usize);

impl Surveyor {
    /// For machine code of an architecture, on a machine of it.
    #[must_use]
    pub fn new(tools: Tools, arch: Arch, machine: &Machine) -> Self {
        let code = Code::new(tools, arch);
        let device = simulate::device(machine, code.ptx);
        Self { code, device, counted: HashMap::new(), found: Survey::default() }
    }

    /// The machine code of a kernel of a file of `csrc`.
    ///
    /// # Errors
    /// If this build has no such kernel, or as [`Tools::machine_code`].
    pub fn kernel(&mut self, file: &'static str, kernel: &str) -> Result<&Function> {
        self.code.kernel(file, kernel)
    }

    /// The name of the kernel that serves a layer, without counting it.
    ///
    /// # Errors
    /// As the library says, with the layer's name.
    pub fn chosen(&self, model: &str, format: &str) -> Result<&'static str> {
        let (geometry, layout) = models::layer(model, format)?;
        let attention = Attention::new(&self.device, geometry, layout, None);
        Ok(attention.with_context(|| format!("{model} with {format}"))?.tiles.kernel)
    }

    /// A layer and its merge.
    ///
    /// # Errors
    /// As the tools, the library, the simulator, and the matching say, with the layer's name.
    pub fn layer(&mut self, model: &str, format: &str) -> Result<(&Layer, &Merge)> {
        if self.found.find(model, format).is_none() {
            let name = || format!("{model} with {format}");
            let layer = self.count(model, format, None).with_context(name)?;
            self.merge(layer.latent_rank)?;
            self.found.layers.push(layer);
        }
        self.found.find(model, format).context("a layer that was counted is not there")
    }

    /// Every way to serve a layer, without counting it: the chosen one first.
    ///
    /// # Errors
    /// As the library says, with the layer's name.
    pub fn variants(&self, model: &str, format: &str) -> Result<Vec<DecodeVariant>> {
        let (geometry, layout) = models::layer(model, format)?;
        let variants = Attention::variants(&self.device, &geometry, layout);
        variants.with_context(|| format!("{model} with {format}"))
    }

    /// A layer that is served in one of these ways, and its merge.
    ///
    /// # Errors
    /// As [`layer`](Self::layer).
    pub fn variant(&mut self, model: &str, format: &str, variant: DecodeVariant) -> Result<(Layer, &Merge)> {
        let name = || format!("{model} with {format} by {variant:?}");
        let layer = self.count(model, format, Some(variant)).with_context(name)?;
        let merge = self.merge(layer.latent_rank)?;
        Ok((layer, merge))
    }

    /// A layer by itself.
    fn count(&mut self, model: &str, format: &str, variant: Option<DecodeVariant>) -> Result<Layer> {
        let (geometry, layout) = models::layer(model, format)?;
        let attention = Attention::new(&self.device, geometry, layout, variant)?;
        let chosen = attention.tiles;
        let SplitCosts { block, merge, merge_partial, merge_batch, .. } = chosen.split_costs;
        let Apart { unit, rest, .. } =
            match self.counted.entry((model.into(), format.into(), chosen.kernel, chosen.tile_tokens, chosen.stages)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let function = self.code.kernel(chosen.file, chosen.kernel)?;
                    let [few, many] = [attention.run(TILES[0])?, attention.run(TILES[1])?];
                    place.insert(Apart::new(function, [&few, &many], TILES)?)
                }
            };
        Ok(Layer {
            model: model.into(),
            format: format.into(),
            kernel: chosen.kernel.into(),
            query_heads: geometry.query_heads,
            block_heads: chosen.heads,
            latent_rank: geometry.latent_rank,
            tile_tokens: chosen.tile_tokens,
            stages: chosen.stages,
            blocks: chosen.blocks_per_multiprocessor,
            target_splits: chosen.target_splits,
            launches: 1,
            split_costs: Some([block, merge, merge_partial, merge_batch]),
            tile: unit.work,
            rest: rest.work,
            tile_evidence: shares(&unit.slots),
            rest_evidence: shares(&rest.slots),
            gaps: rest.gaps.clone(),
        })
    }

    /// The merging of latents of one size.
    fn merge(&mut self, latent_rank: usize) -> Result<&Merge> {
        let known = self.found.merges.iter().position(|merge| merge.latent_rank == latent_rank);
        let place = match known {
            Some(place) => place,
            None => {
                self.found.merges.push(merge(&mut self.code, &self.device, latent_rank)?);
                self.found.merges.len() - 1
            }
        };
        Ok(&self.found.merges[place])
    }

    /// The attention and merging kernels of the layer that is [kept](KEPT).
    ///
    /// # Errors
    /// As [`layer`](Self::layer).
    pub fn keep(&mut self) -> Result<[Kept; 2]> {
        let (geometry, layout) = models::layer(KEPT.0, KEPT.1)?;
        let attention = Attention::new(&self.device, geometry, layout, None)?;
        let DecodeTiles { file, kernel, .. } = attention.tiles;
        let [few, many] = [attention.run(TILES[0])?, attention.run(TILES[1])?];
        let decode = Kept::new(kernel, self.code.source(file)?, TILES, [&few, &many])?;
        let merge = |splits| simulate::combine(&self.device, geometry.latent_rank, splits, SPLITS[0]);
        let [few, many] = [merge(SPLITS[0])?.0, merge(SPLITS[1])?.0];
        Ok([
            decode,
            Kept::new("combine", self.code.source("combine")?, SPLITS.map(|splits| splits / SPLITS[0]), [&few, &many])?,
        ])
    }

    /// What taking in a token costs where tokens are many, by the kernel of `rope_append`.
    ///
    /// # Errors
    /// As [`layer`](Self::layer).
    pub fn rope_append(&mut self, model: &str, format: &str) -> Result<Measured> {
        let (geometry, layout) = models::layer(model, format)?;
        let launch = simulate::rope_append(&self.device, &geometry, layout, APPENDED_TOKENS)?;
        measure(self.code.kernel("rope_append", "rope_append")?, &launch)
    }

    /// The models and formats of the layers that were counted.
    #[must_use]
    pub fn counted(&self) -> Vec<(String, String)> {
        self.found.layers.iter().map(|layer| (layer.model.clone(), layer.format.clone())).collect()
    }

    /// The launches beside attention of a step of so many tokens, by the kernels for few of them.
    ///
    /// # Errors
    /// As [`layer`](Self::layer), and if tokens are too many for these kernels.
    pub fn step(&mut self, model: &str, format: &str, tokens: usize) -> Result<Step> {
        let (geometry, layout) = models::layer(model, format)?;
        let mut count = |file, kernel, (launch, blocks): (Launch, usize), serves: [&'static str; 2]| {
            let work = measure(self.code.kernel(file, kernel)?, &launch)?.work;
            let registers = self.code.kernel(serves[0], serves[1])?.registers().next_multiple_of(8);
            let resident = (REGISTERS / (registers * STEP_THREADS)).min(MOST_THREADS / STEP_THREADS);
            Ok::<_, anyhow::Error>(Beside { blocks, resident, work })
        };
        let device = &self.device;
        let (append, runs) = simulate::append(device, &geometry, layout, tokens)?;
        let prepare = ["prepare", "prepare"];
        let (query, output) = ("absorb_query_few", "expand_output_few");
        Ok(Step {
            tokens,
            absorb: count("absorb", query, simulate::absorb_query(device, &geometry, tokens)?, prepare)?,
            append: count("rope_append", "rope_append", (append, runs), prepare)?,
            expand: count("absorb", output, simulate::expand_output(device, &geometry, tokens)?, ["absorb", output])?,
        })
    }

    /// Everything that was counted.
    #[must_use]
    pub fn into_survey(self) -> Survey {
        self.found
    }
}

/// What a unit of work (a tile, a split) costs a block and what the rest of it does: told apart by two launches of so many
/// units.
#[derive(Clone, Debug, PartialEq)]
pub struct Apart {
    /// A unit.
    pub unit: Measured,
    /// The rest, with the gaps of the first launch.
    pub rest: Measured,
    /// The first launch.
    pub few: Measured,
}

impl Apart {
    /// Counts both launches.
    ///
    /// # Errors
    /// As [`measure`].
    pub fn new(function: &Function, launches: [&Launch; 2], units: [usize; 2]) -> Result<Self> {
        let [few, many] = [measure(function, launches[0])?, measure(function, launches[1])?];
        let (first, share) = (units[0] as f64, 1.0 / (units[1] - units[0]) as f64);
        let work = (many.work - few.work) * share;
        let slots = combine(&many.slots, &few.slots, |many, few| (many - few) * share);
        let rest = Measured {
            work: few.work - work * first,
            slots: combine(&few.slots, &slots, |few, unit| few - unit * first),
            gaps: few.gaps.clone(),
        };
        Ok(Self { unit: Measured { work, slots, gaps: Vec::new() }, rest, few })
    }
}

/// The merging of latents of one size.
fn merge(code: &mut Code, device: &Device, latent_rank: usize) -> Result<Merge> {
    let mut by_kind = |kind| merge_of(code, device, latent_rank, kind);
    let kind = |shares_chunks, has_many| MergeKind { shares_chunks, has_many };
    let others = vec![by_kind(kind(false, true))?, by_kind(kind(true, false))?, by_kind(kind(true, true))?];
    Ok(Merge { others, ..by_kind(MergeKind::default())? })
}

/// The same of one kind of rows.
fn merge_of(code: &mut Code, device: &Device, latent_rank: usize, kind: MergeKind) -> Result<Merge> {
    let function = code.kernel("combine", "combine")?;
    let (splits, batch) = if kind.has_many { (MANY_SPLITS, MANY_SPLITS[0]) } else { (SPLITS, SPLITS[0]) };
    // One row does not fill the machine: blocks share chunks wherever splits are many.
    let expected = if kind.shares_chunks { MANY_SPLITS[0] } else { SPLITS[0] };
    let run = |count: usize| simulate::combine(device, latent_rank, count, expected);
    let ((few, tiles), (many, _)) = (run(splits[0])?, run(splits[1])?);
    let Apart { unit, rest, few: first } = Apart::new(function, [&few, &many], splits.map(|splits| splits / batch))?;
    Ok(Merge {
        latent_rank,
        threads: tiles.threads,
        blocks: tiles.blocks,
        batch,
        resident: Some(REGISTERS / (function.registers().next_multiple_of(8) * tiles.threads)),
        split: unit.work,
        rest: rest.work,
        evidence: shares(&first.slots),
        kind,
        others: Vec::new(),
    })
}

/// Shares of evidence in words, the largest first.
#[must_use]
pub fn in_words(shares: &Shares) -> String {
    let name = |evidence: &Evidence| match evidence {
        Evidence::Lines => "by lines of PTX",
        Evidence::Sums => "by sums",
        Evidence::Flow => "by flow",
        Evidence::Unreachable => "unreachable",
        Evidence::Unmatched => "unmatched",
    };
    let present: BTreeMap<_, _> = shares.iter().filter(|(_, share)| **share > 0.0).collect();
    present
        .into_iter()
        .map(|(evidence, share)| format!("{:.1} % {}", 100.0 * share, name(evidence)))
        .collect::<Vec<_>>()
        .join(", ")
}
