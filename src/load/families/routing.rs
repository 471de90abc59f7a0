//! How the families with mixtures of experts choose among these.

use super::refuse_key;
use crate::error::Result;
use crate::load::experts::{CORRECTION, GroupRank, Router, Scores, read_router};
use crate::load::fields::Fields;
use crate::load::source::TensorSource;

/// The rules of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::load) enum Routing {
    /// A softmax, of which the largest are taken, from all groups or from the groups with the largest.
    DeepSeekV2,
    /// Sigmoids with a correction, from the groups whose two largest have the greatest sum.
    DeepSeekV3,
    /// As [`Routing::DeepSeekV3`], and a norm of what the mixture yields.
    Axk1,
    /// As [`Routing::DeepSeekV3`], of a softmax and without a correction.
    Mistral4,
}

impl Routing {
    /// Whether what the mixture yields is normed.
    pub fn normed(self) -> bool {
        self == Self::Axk1
    }

    /// Reads a layer's router, `[experts, hidden]`. All keys have to be there: their defaults differ between families, and
    /// a model without one of them is none that was published.
    pub fn router(self, config: Fields, source: &dyn TensorSource, module: &str, hidden: usize) -> Result<Router> {
        let softmax = matches!(self, Self::DeepSeekV2 | Self::Mistral4);
        let scores = if softmax { Scores::Softmax } else { Scores::Sigmoid };
        // Neither key is one of transformers' for all families. Published configurations have them.
        let scoring = if softmax { "softmax" } else { "sigmoid" };
        if let Some(other) = config.optional_text("scoring_func")?.filter(|&name| name != scoring) {
            return refuse_key(config, "scoring_func", other, &format!("only `{scoring}` is known of this family"));
        }
        let method = config.optional_text("topk_method")?;
        let (grouped, rank) = match (self, method) {
            (Self::DeepSeekV2, None | Some("greedy")) => (false, GroupRank::Largest),
            (Self::DeepSeekV2, Some("group_limited_greedy")) => (true, GroupRank::Largest),
            (Self::DeepSeekV2, Some(other)) => {
                return refuse_key(config, "topk_method", other, "only `greedy` and `group_limited_greedy` are known");
            }
            (_, None | Some("noaux_tc")) => (true, GroupRank::TwoLargest),
            (_, Some(other)) => return refuse_key(config, "topk_method", other, "only `noaux_tc` is known"),
        };
        let normalised = match self {
            Self::DeepSeekV2 => {
                if config.flag("norm_topk_prob")? {
                    let why = "DeepSeek's own code divides by the sum and leaves `routed_scaling_factor` out, transformers \
                               does neither";
                    return refuse_key(config, "norm_topk_prob", "true", why);
                }
                false
            }
            _ => config.required_flag("norm_topk_prob")?,
        };
        let (groups, chosen_groups) =
            if grouped { (config.size("n_group")?, config.size("topk_group")?) } else { (1, 1) };
        let (chosen, factor) = (config.size("num_experts_per_tok")?, config.positive("routed_scaling_factor")?);
        let corrected = match self {
            Self::DeepSeekV2 | Self::Mistral4 => false,
            Self::DeepSeekV3 => true,
            // transformers has one, the published checkpoints have none.
            Self::Axk1 => source.shape(&format!("{module}.{CORRECTION}")).is_some(),
        };
        let (weight, correction) = read_router(source, module, hidden, corrected)?;
        Ok(Router { weight, scores, correction, groups, chosen_groups, rank, chosen, normalised, factor })
    }
}
