//! Steps 2 and 3: one rotated key for all heads.
//!
//! RoPE turns every head's pair of a frequency by the same angle, and a mix of heads with real coefficients turns with it.
//! So the KV heads' pairs of each frequency are mixed into principal components, of which a few serve all heads. The best
//! of all frequencies' components keep their rotation.

use faer::Mat;

use super::inputs::{LayerInputs, for_each_sequence};
use super::moments::Moments;
use super::original::{Original, Sequence};
use super::samples::Samples;
use super::{Sampling, Step};
use crate::convert::linalg::symmetric_eigen;
use crate::error::Result;

/// Sizes of queries below this share of the largest count as so much, since components are divided by them.
const SMALLEST_SIZE: f64 = 1e-6;

/// The components of every frequency.
pub(super) struct Components {
    /// For every pair, how component c (column) mixes the KV heads (rows): orthogonal, `[G, G]`.
    mixes: Vec<Mat<f64>>,
    /// For every pair and KV head, the root mean square of the queries that read it.
    sizes: Vec<Vec<f64>>,
}

/// One component of one frequency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Component {
    pub pair: usize,
    /// Its place among the components of the frequency, the largest first.
    pub rank: usize,
}

impl Components {
    /// Step 2: eigenvectors of the KV heads' weighted second moments, each head's keys scaled by the size of the queries
    /// that read them.
    pub fn new(original: &Original, moments: &Moments, sampling: &Sampling) -> Result<Self> {
        let pairs = original.pairs();
        let size = |pair: usize, group: usize| {
            let heads = (0..original.query_heads).filter(|&head| original.kv_head_of(head) == group);
            let energy = |head: usize| {
                let moment = &moments.queries[head];
                moment[(pair, pair)] + moment[(pair + pairs, pair + pairs)]
            };
            heads.map(energy).sum::<f64>().sqrt()
        };
        let mut sizes: Vec<Vec<f64>> =
            (0..pairs).map(|pair| (0..original.kv_heads).map(|group| size(pair, group)).collect()).collect();
        let largest = sizes.iter().flatten().fold(f64::MIN_POSITIVE, |most, &size| most.max(size));
        sizes.iter_mut().flatten().for_each(|size| *size = size.max(SMALLEST_SIZE * largest));
        let mix = |pair: usize| {
            if sampling.without == Some(Step::Mixing) {
                return Ok(Mat::identity(original.kv_heads, original.kv_heads));
            }
            let (keys, sizes) = (&moments.keys[pair], &sizes[pair]);
            let scaled =
                Mat::from_fn(keys.nrows(), keys.ncols(), |g, other| keys[(g, other)] * sizes[g] * sizes[other]);
            Ok(symmetric_eigen(scaled.as_ref())?.vectors)
        };
        let mixes = (0..pairs).map(mix).collect::<Result<_>>()?;
        Ok(Self { mixes, sizes })
    }

    /// The coefficient of KV head `group` in a component's key.
    pub fn encode(&self, component: Component, group: usize) -> f64 {
        self.mixes[component.pair][(group, component.rank)] * self.sizes[component.pair][group]
    }

    /// The coefficient of a component in KV head `group`'s key.
    pub fn decode(&self, component: Component, group: usize) -> f64 {
        self.mixes[component.pair][(group, component.rank)] / self.sizes[component.pair][group]
    }

    /// Step 3: all components, those first whose scores lose most without their rotation.
    ///
    /// # Errors
    /// As for [`Original::sequence`].
    pub fn ranked(
        &self,
        original: &Original,
        moments: &Moments,
        inputs: &dyn LayerInputs,
        sampling: &Sampling,
    ) -> Result<Vec<Component>> {
        let all = self.all(original);
        let mut products = vec![Products::default(); original.query_heads * all.len()];
        let make = |index| {
            let sequence = original.sequence(inputs, index)?;
            Ok(self.products(original, &sequence, &moments.samples[index]))
        };
        for_each_sequence(inputs.sequences(), make, |_, sequence| {
            products.iter_mut().zip(&sequence).for_each(|(sum, products)| sum.add(products));
        })?;
        let loses = match sampling.without {
            Some(Step::Ranking) => |products: &Products| products.yy,
            _ => Products::unexplained,
        };
        let lost = |index: usize| products.iter().skip(index).step_by(all.len()).map(loses).sum();
        let mut ranked: Vec<(f64, Component)> = all.iter().enumerate().map(|(i, &of)| (lost(i), of)).collect();
        // Equal losses stand in their order, so that the choice is the same on every machine.
        ranked.sort_by(|(a, first), (b, second)| b.total_cmp(a).then(first.cmp(second)));
        Ok(ranked.into_iter().map(|(_, component)| component).collect())
    }

    /// All components, by pair and size.
    fn all(&self, original: &Original) -> Vec<Component> {
        let of_pair = |pair| (0..original.kv_heads).map(move |rank| Component { pair, rank });
        (0..original.pairs()).flat_map(of_pair).collect()
    }

    /// `[H, pairs * G]` of one sequence.
    fn products(&self, original: &Original, sequence: &Sequence, samples: &Samples) -> Vec<Products> {
        let (groups, d, pairs) = (original.kv_heads, original.head_dim, original.pairs());
        let all = self.all(original);
        // Every token's component keys: [tokens, components] of (real, imaginary).
        let component_key = |token: usize, component: Component| {
            let (key, pair) = (sequence.key.col(token), component.pair);
            (0..groups).fold((0.0, 0.0), |(a, b), group| {
                let factor = self.encode(component, group);
                (a + factor * key[group * d + pair], b + factor * key[group * d + pair + pairs])
            })
        };
        let keys: Vec<Vec<(f64, f64)>> =
            (0..sequence.tokens()).map(|token| all.iter().map(|&kept| component_key(token, kept)).collect()).collect();
        let turns: Vec<Vec<(f64, f64)>> = (0..sequence.tokens())
            .map(|distance| original.frequencies.iter().map(|f| (distance as f64 * f).sin_cos()).collect())
            .collect();

        let mut products = vec![Products::default(); original.query_heads * all.len()];
        for (head, products) in products.chunks_exact_mut(all.len()).enumerate() {
            let group = original.kv_head_of(head);
            let decode: Vec<f64> = all.iter().map(|&kept| self.decode(kept, group)).collect();
            for (query, &position) in samples.positions.iter().enumerate() {
                let vector = original.head_rows(&samples.queries, head).col(query);
                let (weight, sampled) = samples.of(head, query);
                for (index, kept) in all.iter().enumerate() {
                    let (p, q) = (vector[kept.pair] * decode[index], vector[kept.pair + pairs] * decode[index]);
                    let mut sums = Sums::default();
                    for &token in sampled {
                        let (a, b) = keys[token as usize][index];
                        // The product of the conjugate query and the key, and the same turned back by the distance.
                        let (real, imaginary) = (p * a + q * b, p * b - q * a);
                        let (sin, cos) = turns[position - token as usize][kept.pair];
                        sums.add(real * cos + imaginary * sin, real, imaginary);
                    }
                    products[index].add_centred(&sums, weight / sampled.len() as f64, sampled.len() as f64);
                }
            }
        }
        products
    }
}

/// Over the keys of one query: sums of the true score y and of its unrotated product's parts a and b, and of their
/// products.
#[derive(Clone, Copy, Default)]
struct Sums {
    y: f64,
    a: f64,
    b: f64,
    products: Products,
}

impl Sums {
    fn add(&mut self, y: f64, a: f64, b: f64) {
        (self.y, self.a, self.b) = (self.y + y, self.a + a, self.b + b);
        let products = &mut self.products;
        products.yy += y * y;
        products.aa += a * a;
        products.bb += b * b;
        products.ab += a * b;
        products.ya += y * a;
        products.yb += y * b;
    }
}

/// Weighted sums of products, centred over the keys of each query.
#[derive(Clone, Copy, Debug, Default)]
struct Products {
    yy: f64,
    aa: f64,
    bb: f64,
    ab: f64,
    ya: f64,
    yb: f64,
}

impl Products {
    fn add(&mut self, other: &Self) {
        self.yy += other.yy;
        self.aa += other.aa;
        self.bb += other.bb;
        self.ab += other.ab;
        self.ya += other.ya;
        self.yb += other.yb;
    }

    fn add_centred(&mut self, sums: &Sums, weight: f64, count: f64) {
        let Sums { y, a, b, products } = sums;
        self.yy += weight * (products.yy - y * y / count);
        self.aa += weight * (products.aa - a * a / count);
        self.bb += weight * (products.bb - b * b / count);
        self.ab += weight * (products.ab - a * b / count);
        self.ya += weight * (products.ya - y * a / count);
        self.yb += weight * (products.yb - y * b / count);
    }

    /// What is left of y's variance after the best multiples of a and b.
    fn unexplained(&self) -> f64 {
        let determinant = self.aa * self.bb - self.ab * self.ab;
        if determinant <= 1e-12 * self.aa * self.bb {
            // The two are the same up to a factor, or nothing: the larger explains what either does.
            let (along, square) = if self.aa >= self.bb { (self.ya, self.aa) } else { (self.yb, self.bb) };
            return if square > 0.0 { (self.yy - along * along / square).max(0.0) } else { self.yy.max(0.0) };
        }
        let explained = self.ya * self.ya * self.bb - 2.0 * self.ya * self.yb * self.ab + self.yb * self.yb * self.aa;
        (self.yy - explained / determinant).max(0.0)
    }
}
