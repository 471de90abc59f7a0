use super::super::gradient_check::{check, random};
use super::*;

/// MHA2MLA's shape, DeepSeek's, everything rotated, nothing rotated.
fn geometries() -> [Geometry; 4] {
    [
        Geometry::mha2mla(4, 2, 6, 2, 3).unwrap(),
        Geometry::deepseek(3, 5, 4, 3, 2).unwrap(),
        Geometry::mha2mla(2, 1, 4, 4, 3).unwrap(),
        Geometry::deepseek(2, 5, 0, 3, 2).unwrap(),
    ]
}

fn inputs(g: &Geometry, tokens: usize) -> [Tensor; 2] {
    let width = Columns::new(*g).width;
    [random(1, &[tokens, width]), random(2, &[g.kv_heads * (g.nope_dim + g.value_dim), g.latent_rank])]
}

#[test]
fn gradients_agree_with_differences() {
    for geometry in geometries() {
        check(&inputs(&geometry, 8), |a| latent_attention(&a[0], &a[1], &geometry, 0.7, 4));
    }
}

/// The formula in the documentation of `LatentAttention`, one score at a time.
fn naive(projected: &[Vec<f64>], up: &[Vec<f64>], g: &Geometry, scale: f64, sequence: usize) -> Vec<Vec<f64>> {
    let columns = Columns::new(*g);
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let latent = |t: usize| &projected[t][columns.latent..];
    let token = |t: usize| -> Vec<f64> {
        let head = |h: usize| -> Vec<f64> {
            let (group, rope_head) = (g.kv_head_of(h), g.rope_head_of(h));
            let score = |s: usize| {
                let nope: f64 = (0..g.nope_dim)
                    .map(|i| {
                        projected[t][columns.q_nope + h * g.nope_dim + i] * dot(&up[group * g.nope_dim + i], latent(s))
                    })
                    .sum();
                let rope = dot(
                    &projected[t][h * g.rope_dim..][..g.rope_dim],
                    &projected[s][columns.k_rope + rope_head * g.rope_dim..][..g.rope_dim],
                );
                (scale * (nope + rope)).exp()
            };
            let seen = t / sequence * sequence..t + 1;
            let total: f64 = seen.clone().map(score).sum();
            let value = |i: usize| -> f64 {
                let row = &up[g.kv_heads * g.nope_dim + group * g.value_dim + i];
                seen.clone().map(|s| score(s) / total * dot(row, latent(s))).sum()
            };
            (0..g.value_dim).map(value).collect()
        };
        (0..g.query_heads).flat_map(head).collect()
    };
    (0..projected.len()).map(token).collect()
}

#[test]
fn attention_is_the_documented_formula_beyond_one_block() {
    for geometry in geometries() {
        let sequence = 70; // more than a block of queries
        let [projected, up] = inputs(&geometry, 2 * sequence);
        let got: Vec<Vec<f64>> =
            latent_attention(&projected, &up, &geometry, 0.7, sequence).unwrap().to_vec2().unwrap();
        let expected = naive(&projected.to_vec2().unwrap(), &up.to_vec2().unwrap(), &geometry, 0.7, sequence);
        for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
            assert!((got - expected).abs() < 1e-12, "{geometry:?}");
        }
    }
}

#[test]
fn dense_attention_is_latent_attention_with_an_identity() {
    let (heads, groups, dim, tokens) = (4, 2, 6, 9);
    let x = random(1, &[tokens, (heads + 2 * groups) * dim]);
    let geometry = Geometry::mha2mla(heads, groups, dim, dim, dim).unwrap();
    let up = Tensor::eye(groups * dim, candle_core::DType::F64, &candle_core::Device::Cpu).unwrap();
    let expected = latent_attention(&x, &up, &geometry, geometry.default_scale(), tokens).unwrap();
    let got = causal_attention(&x, heads, groups, dim, tokens).unwrap();
    assert_eq!(got.to_vec2::<f64>().unwrap(), expected.to_vec2::<f64>().unwrap());
    assert!(causal_attention(&x, heads, groups, dim, 4).is_err());
    assert!(causal_attention(&x, heads, groups, 5, tokens).is_err());
}

#[test]
fn gradients_do_not_depend_on_the_number_of_cores() {
    let geometry = Geometry::deepseek(3, 5, 4, 3, 2).unwrap();
    let [projected, up] = inputs(&geometry, 140);
    let run = || {
        let x = candle_core::Var::from_tensor(&projected).unwrap();
        let y = latent_attention(&x, &up, &geometry, 0.7, 70).unwrap();
        let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        gradients.get(&x).unwrap().to_vec2::<f64>().unwrap()
    };
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(one.install(run), run());
}

#[test]
fn shapes_are_checked() {
    let geometry = geometries()[0];
    let [projected, up] = inputs(&geometry, 8);
    let error = |p: &Tensor, u: &Tensor, sequence| latent_attention(p, u, &geometry, 1.0, sequence).is_err();
    assert!(error(&up, &projected, 4) && error(&projected, &projected, 4) && error(&projected, &up, 3));
    assert!(error(&projected, &up, 0) && !error(&projected, &up, 4));
}
