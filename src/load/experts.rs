//! Mixtures of experts: MLPs of which each token takes a few, by a router's scores.

use super::checkpoint::Checkpoint;
use super::families::Routing;
use super::fields::Fields;
use super::source::{TensorSource, linear, matrix, rows_of, unfit};
use super::unread::Recording;
use crate::error::{Error, Result, check_len};
use crate::weights::{Linear, Matrix, RmsNorm};

/// What a layer has besides attention where its MLP is a mixture of experts.
///
/// For `y = mlp_norm(x)`, with the experts and weights that [`Router::choose`] yields for `y`:
///
/// ```text
/// x + output_norm(sum_i weight_i * expert_i(y) + shared(y))
/// ```
///
/// Experts are read one by one, by [`Checkpoint::expert`]: those of one layer of DeepSeek-V3 are 45 GB in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    /// Norm in front of the attention, over `hidden`.
    pub attention_norm: RmsNorm,
    /// Norm in front of the mixture, over `hidden`.
    pub mlp_norm: RmsNorm,
    /// Chooses the experts of a token.
    pub router: Router,
    /// The MLP that all tokens take (`shared_experts`: those of a model side by side), if there is one.
    pub shared: Option<GatedMlp>,
    /// Norm of the sum, over `hidden` (A.X K1); none in most families.
    pub output_norm: Option<RmsNorm>,
}

/// An MLP: `down(silu(gate(x)) * up(x))`.
#[derive(Clone, Debug, PartialEq)]
pub struct GatedMlp {
    /// `[width, hidden]`.
    pub gate: Linear,
    /// `[width, hidden]`.
    pub up: Linear,
    /// `[hidden, width]`.
    pub down: Linear,
}

/// Chooses experts for a token, as DeepSeek's models do.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    /// `[experts, hidden]`: yields one logit for each expert.
    pub weight: Matrix,
    /// What scores are, of logits.
    pub scores: Scores,
    /// `[experts]`, added to scores where experts are compared. Weights are made of the scores alone.
    pub correction: Option<Vec<f32>>,
    /// Groups of equal size that the experts fall into, in their order.
    pub groups: usize,
    /// Groups that a token chooses among, those that rank first: 1..=`groups`.
    pub chosen_groups: usize,
    /// By what groups are compared.
    pub rank: GroupRank,
    /// Experts that a token takes: at most those of the chosen groups.
    pub chosen: usize,
    /// Whether weights are divided by their sum.
    pub normalised: bool,
    /// Factor on all weights.
    pub factor: f64,
}

/// What an expert's score is, of all logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scores {
    /// Its share of a softmax.
    Softmax,
    /// The logistic function of its own logit.
    Sigmoid,
}

/// By what groups of experts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupRank {
    /// Their largest score (DeepSeek-V2).
    Largest,
    /// The sum of their two largest scores (DeepSeek-V3).
    TwoLargest,
}

/// One of the experts that a token takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Its number.
    pub expert: usize,
    /// Factor on its output.
    pub weight: f64,
}

impl Router {
    /// The experts that a token of hidden state `x` (`[hidden]`, normed) takes, the one that is preferred most first. Sums in
    /// f64. Of equals the one with the lower number is preferred.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` or the correction has another length than the weight says; [`Error::Config`] if the groups
    /// do not divide the experts, or there are fewer experts or groups than are to be chosen.
    pub fn choose(&self, x: &[f32]) -> Result<Vec<Choice>> {
        self.check()?;
        check_len("router input", x.len(), &[("hidden", self.weight.cols())])?;
        let experts = self.weight.rows();
        let logit = |expert: usize| {
            let row = self.weight.row(expert);
            row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum::<f64>()
        };
        let scores = self.scores.of((0..experts).map(logit).collect());
        let compared: Vec<f64> = match &self.correction {
            None => scores.clone(),
            Some(correction) => scores.iter().zip(correction).map(|(score, &c)| score + f64::from(c)).collect(),
        };
        let size = experts / self.groups;
        let ranks: Vec<f64> = compared.chunks_exact(size).map(|group| self.rank.of(group)).collect();
        let groups = first(self.chosen_groups, (0..self.groups).collect(), &ranks);
        let members = groups.into_iter().flat_map(|group| group * size..(group + 1) * size).collect();
        let chosen = first(self.chosen, members, &compared);
        // As DeepSeek has it, so that scores of 0 are no division by it.
        let sum = chosen.iter().map(|&expert| scores[expert]).sum::<f64>() + 1e-20;
        let factor = if self.normalised { self.factor / sum } else { self.factor };
        Ok(chosen.into_iter().map(|expert| Choice { expert, weight: factor * scores[expert] }).collect())
    }

    /// Whether the numbers fit each other.
    fn check(&self) -> Result<()> {
        let experts = self.weight.rows();
        if let Some(correction) = &self.correction {
            check_len("router correction", correction.len(), &[("experts", experts)])?;
        }
        let Self { groups, chosen_groups, chosen, .. } = *self;
        let refuse = |why: String| Err(Error::Config { what: format!("router of {experts} experts"), why });
        let least = if self.rank == GroupRank::TwoLargest { 2 } else { 1 };
        if groups == 0 || !experts.is_multiple_of(groups) || experts / groups < least {
            return refuse(format!("{groups} groups (`n_group`) must be of equal size, at least {least} each"));
        }
        if chosen_groups == 0 || chosen_groups > groups {
            return refuse(format!("of {groups} groups {chosen_groups} (`topk_group`) cannot be chosen"));
        }
        let among = experts / groups * chosen_groups;
        if chosen == 0 || chosen > among {
            return refuse(format!("{chosen} experts (`num_experts_per_tok`) cannot be chosen among {among}"));
        }
        Ok(())
    }
}

/// Those `count` of the members that have the greatest values; of equals, those that stand first in `members`.
fn first(count: usize, mut members: Vec<usize>, values: &[f64]) -> Vec<usize> {
    members.sort_unstable();
    members.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    members.truncate(count);
    members
}

impl Scores {
    fn of(self, mut logits: Vec<f64>) -> Vec<f64> {
        match self {
            Self::Sigmoid => logits.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
            Self::Softmax => {
                let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                logits.iter_mut().for_each(|x| *x = (*x - largest).exp());
                let sum: f64 = logits.iter().sum();
                logits.iter_mut().for_each(|x| *x /= sum);
            }
        }
        logits
    }
}

impl GroupRank {
    fn of(self, group: &[f64]) -> f64 {
        let (mut largest, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for &score in group {
            if score > largest {
                (largest, second) = (score, largest);
            } else {
                second = second.max(score);
            }
        }
        match self {
            Self::Largest => largest,
            Self::TwoLargest => largest + second,
        }
    }
}

/// Names of the maps of an MLP.
const MAPS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

impl Checkpoint {
    /// The norms, the router and the shared MLP of a layer whose MLP is a mixture of experts; `None` for other layers,
    /// which [`Checkpoint::block`] reads.
    ///
    /// # Errors
    /// [`Error::Index`] if there is no such layer, [`Error::Tensor`] as for [`Checkpoint::attention`] (here for the
    /// tensors beside the attention, those of all experts included, whose shapes are looked at), [`Error::File`] if the
    /// configuration lacks one of the mixture's keys, [`Error::Config`] if they contradict each other, and
    /// [`Error::Unsupported`] if the family's mixtures are not known.
    pub fn mixture(&self, layer: usize) -> Result<Option<Mixture>> {
        self.check_layer(layer)?;
        if !self.has_experts(layer) {
            return Ok(None);
        }
        let routing = self.routing(layer)?;
        let (module, hidden) = (format!("model.layers.{layer}"), self.config.hidden);
        let source = &Recording::new(self.source());
        let sizes = Sizes::read(source, &module, self.fields(), hidden)?;
        let router = routing.router(self.fields(), source, &format!("{module}.mlp.gate"), hidden)?;
        router.check()?;
        for (name, shape) in sizes.expert_tensors(&module, hidden) {
            let found = source.shape(&name);
            if found.as_deref() != Some(&shape[..]) {
                let got = found.map(|shape| format!("{shape:?}"));
                return Err(unfit(source.path(), &name, format!("{shape:?}"), got));
            }
            source.leave_for_later(&name);
        }
        let norm = |name: &str| self.norm(source, &format!("{module}.{name}.weight"));
        let mixture = Mixture {
            attention_norm: norm("input_layernorm")?,
            mlp_norm: norm("post_attention_layernorm")?,
            router,
            shared: match sizes.shared {
                0 => None,
                width => Some(read_mlp(source, &format!("{module}.mlp.shared_experts"), width, hidden)?),
            },
            output_norm: if routing.normed() { Some(norm("post_mlp_layernorm")?) } else { None },
        };
        self.refuse_unread_beside_attention(source, layer)?;
        Ok(Some(mixture))
    }

    /// One expert of a layer whose MLP is a mixture.
    ///
    /// # Errors
    /// As for [`Checkpoint::mixture`]; [`Error::Index`] too if the layer has no such expert.
    pub fn expert(&self, layer: usize, expert: usize) -> Result<GatedMlp> {
        self.check_layer(layer)?;
        if !self.has_experts(layer) {
            return Err(missing_experts(layer));
        }
        self.routing(layer)?;
        let (module, hidden) = (format!("model.layers.{layer}"), self.config.hidden);
        let sizes = Sizes::read(self.source(), &module, self.fields(), hidden)?;
        if expert >= sizes.experts {
            return Err(Error::Index {
                what: format!("expert of layer {layer}"),
                got: i64::try_from(expert).unwrap_or(i64::MAX),
                bound: format!("0..{}", sizes.experts),
            });
        }
        if sizes.stacked {
            return read_stacked(self.source(), &module, &sizes, expert, hidden);
        }
        read_mlp(self.source(), &format!("{module}.mlp.experts.{expert}"), sizes.width, hidden)
    }

    /// How the family routes tokens.
    fn routing(&self, layer: usize) -> Result<Routing> {
        match (self.layout.routing(), self.layout.block_refusal()) {
            (Some(routing), None) => Ok(routing),
            (_, why) => Err(self
                .mlp_refusal(layer, why.unwrap_or("is a mixture of experts, of which only the attention can be read"))),
        }
    }
}

fn missing_experts(layer: usize) -> Error {
    Error::Unsupported {
        what: format!("an expert of layer {layer}"),
        why: "this layer has one MLP for all tokens, which `Checkpoint::block` reads".into(),
    }
}

/// Sizes of a mixture's MLPs.
struct Sizes {
    experts: usize,
    /// Width inside an expert.
    width: usize,
    /// Width inside the shared MLP, 0 if there is none.
    shared: usize,
    /// Whether the experts are two tensors, as transformers has Mistral 4's.
    stacked: bool,
}

impl Sizes {
    /// The experts are as many as the router has rows. A number that the configuration has of them too must agree.
    fn read(source: &dyn TensorSource, module: &str, config: Fields, hidden: usize) -> Result<Self> {
        let router = format!("{module}.mlp.gate.weight");
        let experts = rows_of(source, &router, hidden)?;
        if let Some(other) = config.optional_size("n_routed_experts")?.filter(|&said| said != experts) {
            let expected = format!("[{other}, {hidden}], as `n_routed_experts` says");
            return Err(unfit(source.path(), &router, expected, Some(format!("[{experts}, {hidden}]"))));
        }
        let width = config.size("moe_intermediate_size")?;
        let name = format!("{module}.mlp.shared_experts.gate_proj.weight");
        let shared = match config.optional_count("n_shared_experts")? {
            // The product of two sizes cannot overflow.
            Some(experts) => experts * width,
            None if source.shape(&name).is_some() => rows_of(source, &name, hidden)?,
            None => 0,
        };
        let stacked = source.shape(&format!("{module}.{}", STACKED[0])).is_some();
        Ok(Self { experts, width, shared, stacked })
    }

    /// Names and shapes of the tensors of all experts.
    // One after the other: a damaged file may name any number of experts, of which the first is missing.
    fn expert_tensors(&self, module: &str, hidden: usize) -> impl Iterator<Item = (String, Vec<usize>)> {
        let stacked = STACKED.map(|name| format!("{module}.{name}")).into_iter();
        let stacked = stacked.zip(self.stacked_shapes(hidden).map(Vec::from)).filter(|_| self.stacked);
        let shapes = [[self.width, hidden], [self.width, hidden], [hidden, self.width]];
        let of_expert = move |expert: usize| {
            let name = move |map: &str| format!("{module}.mlp.experts.{expert}.{map}.weight");
            MAPS.iter().zip(shapes).map(move |(map, shape)| (name(map), shape.to_vec()))
        };
        let alone = if self.stacked { 0 } else { self.experts };
        stacked.chain((0..alone).flat_map(of_expert))
    }

    /// The shapes of [`STACKED`].
    fn stacked_shapes(&self, hidden: usize) -> [[usize; 3]; 2] {
        [[self.experts, 2 * self.width, hidden], [self.experts, hidden, self.width]]
    }
}

/// All experts' gates above their up-projections, and their down-projections.
const STACKED: [&str; 2] = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"];

fn read_stacked(
    source: &dyn TensorSource,
    module: &str,
    sizes: &Sizes,
    expert: usize,
    hidden: usize,
) -> Result<GatedMlp> {
    let [both, down] = sizes.stacked_shapes(hidden);
    let part = |name: &str, shape: [usize; 3]| {
        let numbers = source.read_one_of(&format!("{module}.{name}"), shape, expert)?;
        Ok::<_, Error>(Linear::new(Matrix::new(shape[1], shape[2], numbers)?))
    };
    let both = part(STACKED[0], both)?;
    let rows = |first: usize| both.select_outputs(&(first..first + sizes.width).collect::<Vec<_>>());
    Ok(GatedMlp { gate: rows(0), up: rows(sizes.width), down: part(STACKED[1], down)? })
}

fn read_mlp(source: &dyn TensorSource, module: &str, width: usize, hidden: usize) -> Result<GatedMlp> {
    let map = |name: &str, rows, cols| linear(source, &format!("{module}.{name}"), rows, cols);
    let [gate, up, down] = MAPS;
    Ok(GatedMlp { gate: map(gate, width, hidden)?, up: map(up, width, hidden)?, down: map(down, hidden, width)? })
}

/// The tensor of a router's correction.
pub(super) const CORRECTION: &str = "e_score_correction_bias";

/// The router's weight, `[experts, hidden]`, and its correction where there has to be one.
pub(super) fn read_router(
    source: &dyn TensorSource,
    module: &str,
    hidden: usize,
    corrected: bool,
) -> Result<(Matrix, Option<Vec<f32>>)> {
    let name = format!("{module}.weight");
    let experts = rows_of(source, &name, hidden)?;
    let weight = matrix(source, &name, experts, hidden)?;
    let correction = corrected.then(|| source.read(&format!("{module}.{CORRECTION}"), &[experts]));
    Ok((weight, correction.transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A router whose logits for the input 1 are these.
    fn router(logits: &[f32]) -> Router {
        Router {
            weight: Matrix::new(logits.len(), 1, logits.to_vec()).expect("a matrix"),
            scores: Scores::Sigmoid,
            correction: None,
            groups: 1,
            chosen_groups: 1,
            rank: GroupRank::TwoLargest,
            chosen: 2,
            normalised: false,
            factor: 1.0,
        }
    }

    fn experts(router: &Router) -> Vec<usize> {
        router.choose(&[1.0]).expect("a choice").iter().map(|choice| choice.expert).collect()
    }

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    #[test]
    fn a_correction_changes_the_choice_and_not_the_weights() {
        let plain = router(&[0.0, 2.0, 1.0, -1.0]);
        assert_eq!(experts(&plain), [1, 2]);
        let corrected = Router { correction: Some(vec![0.0, 0.0, 0.0, 5.0]), ..plain };
        let choices = corrected.choose(&[1.0]).expect("a choice");
        assert_eq!(choices[0], Choice { expert: 3, weight: sigmoid(-1.0) });
        assert_eq!(choices[1].expert, 1);
    }

    #[test]
    fn weights_are_shares_of_the_chosen_times_the_factor() {
        let plain = router(&[0.0, 2.0, 1.0, -1.0]);
        let normalised = Router { normalised: true, factor: 2.5, ..plain.clone() };
        let weights: Vec<f64> = normalised.choose(&[1.0]).expect("a choice").iter().map(|c| c.weight).collect();
        let sum = sigmoid(2.0) + sigmoid(1.0);
        for (weight, score) in weights.iter().zip([2.0, 1.0]) {
            assert!((weight - 2.5 * sigmoid(score) / sum).abs() < 1e-12);
        }
        let softmax = Router { scores: Scores::Softmax, ..plain };
        let total: f64 = [0.0f64, 2.0, 1.0, -1.0].iter().map(|x| x.exp()).sum();
        assert!((softmax.choose(&[1.0]).expect("a choice")[0].weight - 2f64.exp() / total).abs() < 1e-12);
    }

    #[test]
    fn groups_are_ranked_by_their_largest_or_by_the_sum_of_their_two_largest() {
        // One outstanding expert, and a group that is good twice.
        let logits = [3.0, -3.0, -3.0, 1.0, 1.2, -3.0];
        let grouped = Router { groups: 2, ..router(&logits) };
        assert_eq!(experts(&grouped), [4, 3]);
        assert_eq!(experts(&Router { rank: GroupRank::Largest, ..grouped.clone() })[0], 0);
        assert_eq!(experts(&Router { chosen_groups: 2, ..grouped }), [0, 4]);
    }

    #[test]
    fn of_equals_the_first_is_taken() {
        assert_eq!(experts(&router(&[0.5; 4])), [0, 1]);
        assert_eq!(experts(&Router { groups: 2, ..router(&[0.5; 4]) }), [0, 1]);
    }

    #[test]
    fn numbers_that_contradict_each_other_are_refused_by_name() {
        let good = router(&[0.0; 6]);
        for (bad, part) in [
            (Router { groups: 0, ..good.clone() }, "n_group"),
            (Router { groups: 4, ..good.clone() }, "n_group"),
            (Router { groups: 6, ..good.clone() }, "at least 2 each"),
            (Router { chosen_groups: 2, ..good.clone() }, "topk_group"),
            (
                Router { groups: 3, chosen: 3, ..good.clone() },
                "3 experts (`num_experts_per_tok`) cannot be chosen among 2",
            ),
            (Router { chosen: 0, ..good.clone() }, "num_experts_per_tok"),
            (Router { correction: Some(vec![0.0; 5]), ..good.clone() }, "router correction"),
        ] {
            let error = bad.choose(&[1.0]).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(good.choose(&[1.0, 2.0]).is_err());
    }
}
