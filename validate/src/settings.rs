//! What a case was made with, as a dump's metadata says it.

use latent_attention::cache::{CacheFormat, CacheLayout, Group, LatentFormat, RangeSetting, RopeFormat};
use latent_attention::ops::SplitPolicy;
use latent_attention::rope::Pairing;
use latent_attention::{Error, Geometry, Result};
use serde::{Deserialize, Serialize};

use crate::Validation;
use crate::case::Kind;

/// Latent formats by name.
pub const LATENT_FORMATS: [(&str, LatentFormat); 5] = [
    ("bf16", LatentFormat::Bf16),
    ("int4", LatentFormat::Int4 { group: Group::Whole }),
    ("int4-g32", LatentFormat::Int4 { group: Group::G32 }),
    ("int4-g64", LatentFormat::Int4 { group: Group::G64 }),
    ("int4-g128", LatentFormat::Int4 { group: Group::G128 }),
];

/// Formats of the rotated key by name.
pub const ROPE_FORMATS: [(&str, RopeFormat); 6] = [
    ("bf16", RopeFormat::Bf16),
    ("int8", RopeFormat::Int8),
    ("int4", RopeFormat::Int4 { group: Group::Whole }),
    ("int4-g32", RopeFormat::Int4 { group: Group::G32 }),
    ("int4-g64", RopeFormat::Int4 { group: Group::G64 }),
    ("int4-g128", RopeFormat::Int4 { group: Group::G128 }),
];

/// How ranges are chosen, by name.
pub const RANGE_SETTINGS: [(&str, RangeSetting); 2] = [("min-max", RangeSetting::MinMax), ("mse", RangeSetting::Mse)];

/// The names of pairings.
pub const PAIRINGS: [(&str, Pairing); 2] = [("half", Pairing::Half), ("interleaved", Pairing::Interleaved)];

/// The value of that name in one of the lists.
///
/// # Errors
/// [`Error::Config`] lists the names.
pub fn by_name<T: Copy>(what: &str, list: &[(&str, T)], name: &str) -> Result<T> {
    list.iter().find(|(known, _)| *known == name).map(|&(_, value)| value).ok_or_else(|| Error::Config {
        what: format!("{what} `{name}`"),
        why: format!("known names are {}", list.iter().map(|&(known, _)| known).collect::<Vec<_>>().join(", ")),
    })
}

/// The name of a value that is in the list, as all are.
fn name_of<T: PartialEq>(list: &[(&'static str, T)], value: T) -> String {
    list.iter().find(|(_, known)| *known == value).map_or_else(String::new, |(name, _)| (*name).into())
}

/// The names of a format's two parts, and of how its ranges are chosen.
pub(crate) fn format_names(format: CacheFormat) -> [String; 3] {
    let [latent, rope] = [name_of(&LATENT_FORMATS, format.latent), name_of(&ROPE_FORMATS, format.rope)];
    [latent, rope, name_of(&RANGE_SETTINGS, format.range)]
}

/// What dumps had that do not say it.
fn min_max() -> String {
    name_of(&RANGE_SETTINGS, RangeSetting::MinMax)
}

/// One case's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub crate_version: String,
    pub case: Kind,
    pub seed: u64,
    #[serde(with = "crate::sizes")]
    pub geometry: Geometry,
    pub latent_format: String,
    pub rope_format: String,
    #[serde(default = "min_max")]
    pub range_setting: String,
    pub page_size: usize,
    pub pairing: String,
    /// Factor on every score.
    pub scale: f32,
    /// Tokens per split where that is fixed, else splits are balanced.
    pub fixed_tokens: Option<usize>,
    /// Added to the mean square of the latent, where there is a norm.
    pub norm_epsilon: f32,
    /// Of a schedule, as [`ScheduleConfig`](latent_attention::ops::ScheduleConfig)'s.
    pub tile_tokens: usize,
    /// Of a schedule, too.
    pub target_items: usize,
}

impl Settings {
    pub fn new(case: Kind, validation: &Validation) -> Self {
        let g = &validation.geometry;
        let [latent_format, rope_format, range_setting] = format_names(validation.format);
        // Scores of a few units: neither an average of everything nor a choice of one token.
        let scored = if case == Kind::Layer { g.nope_dim } else { g.latent_rank } + g.rope_dim;
        let is_fixed = matches!(case, Kind::DecodeFixed | Kind::ScheduleFixed);
        Self {
            crate_version: env!("CARGO_PKG_VERSION").into(),
            case,
            seed: validation.seed,
            geometry: *g,
            latent_format,
            rope_format,
            range_setting,
            page_size: validation.page_size,
            pairing: name_of(&PAIRINGS, validation.pairing),
            scale: 4.0 / (scored as f32).sqrt(),
            fixed_tokens: is_fixed.then_some(validation.fixed_tokens),
            norm_epsilon: 1e-6,
            tile_tokens: 16,
            target_items: 24,
        }
    }

    /// Whether everything is known and fits together.
    pub fn check(&self) -> Result<()> {
        self.layout().and(self.pairing()).map(drop)
    }

    pub fn layout(&self) -> Result<CacheLayout> {
        let latent = by_name("latent format", &LATENT_FORMATS, &self.latent_format)?;
        let rope = by_name("rope format", &ROPE_FORMATS, &self.rope_format)?;
        let range = by_name("range setting", &RANGE_SETTINGS, &self.range_setting)?;
        CacheLayout::new(&self.geometry, CacheFormat::new(latent, rope).with_range(range), self.page_size)
    }

    pub fn pairing(&self) -> Result<Pairing> {
        by_name("pairing", &PAIRINGS, &self.pairing)
    }

    pub fn policy(&self) -> SplitPolicy {
        self.fixed_tokens.map_or(SplitPolicy::Balanced, |tokens| SplitPolicy::Fixed { tokens })
    }
}
