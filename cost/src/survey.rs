//! Counting what layers cost: machine code from this build's PTX, trip counts from the simulator.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use latent_attention::device::Device;
use latent_attention::image::{Arch, ptx};

use crate::counts::Evidence;
use crate::layer::{Layer, Merge, Survey};
use crate::machine::Machine;
use crate::models;
use crate::sass::parse::Function;
use crate::simulate::{self, Attention};
use crate::tools::Tools;
use crate::work::{Shares, combine, measure, shares};

/// Tiles of the two launches that tell what a tile costs from what the rest does. Tiles take turns between two stages, so
/// that they differ by a whole number of turns; and with fewer than three there is no tile whose copies are all behind it.
pub const TILES: [usize; 2] = [3, 5];

/// Splits of the two merges that tell what a split costs. The kernel takes four at a time.
pub const SPLITS: [usize; 2] = [16, 64];

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
                let source = ptx(file, self.ptx)
                    .with_context(|| format!("this build has no PTX of csrc/{file}.cu: it was built without nvcc"))?;
                Ok(place.insert(self.tools.machine_code(source, self.arch.name(), kernel)?))
            }
        }
    }
}

/// Counts layers, each of them when it is asked for first.
#[derive(Debug)]
pub struct Surveyor {
    code: Code,
    device: Device,
    found: Survey,
}

impl Surveyor {
    /// For machine code of an architecture, on a machine of it.
    #[must_use]
    pub fn new(tools: Tools, arch: Arch, machine: &Machine) -> Self {
        let code = Code::new(tools, arch);
        let device = simulate::device(machine, code.ptx);
        Self { code, device, found: Survey::default() }
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
        let attention = Attention::new(&self.device, geometry, layout);
        Ok(attention.with_context(|| format!("{model} with {format}"))?.tiles.kernel)
    }

    /// A layer and its merge.
    ///
    /// # Errors
    /// As the tools, the library, the simulator, and the matching say, with the layer's name.
    pub fn layer(&mut self, model: &str, format: &str) -> Result<(&Layer, &Merge)> {
        if self.found.find(model, format).is_none() {
            let name = || format!("{model} with {format}");
            let layer = layer(&mut self.code, &self.device, model, format).with_context(name)?;
            if self.found.merges.iter().all(|merge| merge.latent_rank != layer.latent_rank) {
                self.found.merges.push(merge(&mut self.code, &self.device, layer.latent_rank)?);
            }
            self.found.layers.push(layer);
        }
        self.found.find(model, format).context("a layer that was counted is not there")
    }

    /// Everything that was counted.
    #[must_use]
    pub fn into_survey(self) -> Survey {
        self.found
    }
}

/// One layer.
fn layer(code: &mut Code, device: &Device, model: &str, format: &str) -> Result<Layer> {
    let (geometry, layout) = models::layer(model, format)?;
    let attention = Attention::new(device, geometry, layout)?;
    let chosen = attention.tiles;
    let function = code.kernel(chosen.file, chosen.kernel)?;
    let few = measure(function, &attention.run(TILES[0])?)?;
    let many = measure(function, &attention.run(TILES[1])?)?;
    let per_tile = 1.0 / (TILES[1] - TILES[0]) as f64;
    let tile = (many.work - few.work) * per_tile;
    let tile_slots = combine(&many.slots, &few.slots, |many, few| (many - few) * per_tile);
    let rest_slots = combine(&few.slots, &tile_slots, |few, tile| few - tile * TILES[0] as f64);
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
        tile,
        rest: few.work - tile * TILES[0] as f64,
        tile_evidence: shares(&tile_slots),
        rest_evidence: shares(&rest_slots),
        gaps: few.gaps,
    })
}

/// The merging of latents of one size.
fn merge(code: &mut Code, device: &Device, latent_rank: usize) -> Result<Merge> {
    let function = code.kernel("combine", "combine")?;
    let [few, many] =
        [simulate::combine(device, latent_rank, SPLITS[0])?, simulate::combine(device, latent_rank, SPLITS[1])?];
    let threads = 32 * few.issued.len();
    let [few, many] = [measure(function, &few)?, measure(function, &many)?];
    let split = (many.work - few.work) * (1.0 / (SPLITS[1] - SPLITS[0]) as f64);
    let rest = few.work - split * SPLITS[0] as f64;
    Ok(Merge { latent_rank, threads, split, rest, evidence: shares(&few.slots) })
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
