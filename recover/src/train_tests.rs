use super::*;
use crate::frame::variable;
use crate::ops::primitives_tests::by_candle;
use crate::step::{Batch, Gradients, Loss};
use crate::tiny;
use candle_core::Device;
use latent_attention::weights::LatentAttention;
use latent_attention_lm::transformer::{AttentionStep, Transformer};

const SEQUENCE: usize = 12;

fn options(mode: Mode) -> Options {
    Options { mode, steps: 6, batch: 2, sequence: SEQUENCE, positions: 5, rate: 5e-3, warmup: 2, ..Options::default() }
}

fn output(folder: &Path) -> Output {
    Output { folder: folder.to_owned(), evaluate_every: 2, checkpoint_every: 2, recompute: false }
}

fn batch() -> Batch {
    Windows::new(&tiny::text(200, 1), Some(1), SEQUENCE, 3).unwrap().batch(0, 2, 5)
}

/// Begins or resumes a run of a fresh student, and hands it to `f`.
fn with_run<R>(
    student: &Student,
    options: Options,
    output: Output,
    resume: bool,
    f: impl FnOnce(Result<Run>) -> R,
) -> R {
    let original = tiny::original();
    let (training, evaluation) = (tiny::text(300, 1), tiny::text(60, 2));
    let windows = Windows::new(&training, Some(1), options.sequence, options.seed).unwrap();
    let held_out = HeldOut::new(&original, &evaluation, Some(1), 40).unwrap();
    let parts = Parts { original: &original, student, windows: &windows, held_out: &held_out };
    f(Run::new(parts, options, output, &[&training, &evaluation], resume))
}

fn numbers(student: &Student) -> Vec<Vec<u32>> {
    let mut all = Vec::new();
    student.visit(&mut |_, tensor| {
        let numbers: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        all.push(numbers.into_iter().map(f32::to_bits).collect());
    });
    all
}

fn loss(student: &Student, batch: &Batch) -> f64 {
    let (loss, _) = step(&tiny::original(), student, batch, None, true).unwrap();
    loss.divergence + loss.hidden
}

#[test]
fn the_gradient_of_a_step_is_that_of_its_loss() {
    for mode in [Mode::Attention, Mode::LowRank { rank: 2 }, Mode::Everything] {
        let (student, batch) = (tiny::student(&tiny::shared_key(true), mode), batch());
        let (_, gradients) = step(&tiny::original(), &student, &batch, None, false).unwrap();
        // Along the gradient itself, in which direction the loss changes most, and far more than f32 rounds.
        let variables = student.variables();
        let length = norm(&variables, &gradients).unwrap();
        let before: Vec<Tensor> = variables.iter().map(|(_, v)| v.copy().unwrap()).collect();
        let moved = |size: f64| {
            for ((_, variable), before) in variables.iter().zip(&before) {
                let Some(gradient) = gradients.get(variable) else { continue };
                let value = (before + (gradient * (size / length)).unwrap()).unwrap();
                candle_core::Var::from_tensor(variable).unwrap().set(&value).unwrap();
            }
            loss(&student, &batch)
        };
        let size = 2e-3;
        let slope = (moved(size) - moved(-size)) / (2.0 * size);
        assert!((slope / length - 1.0).abs() < 5e-3, "{mode:?}: slope {slope}, gradient {length}");
    }
}

/// One step of training on a device, with the int4 cache in the loop: the loss, the gradients' norm, and the numbers
/// that the optimiser and the student are left with.
fn one_step(layers: &[LatentAttention], mode: Mode, device: &Device) -> (Loss, f64, Vec<f32>) {
    let frame = tiny::frame().to_device(device).unwrap();
    let original = Original::new(frame.clone(), &tiny::dense(false), &tiny::tables()).unwrap();
    let student = Student::new(&frame, layers, &tiny::tables(), mode, 1).unwrap();
    let variables = student.variables();
    let (loss, gradients) = step(&original, &student, &batch(), Some(CacheFormat::INT4), false).unwrap();
    let length = norm(&variables, &gradients).unwrap();
    let mut optimiser = AdamW::new(AdamWOptions::default(), &variables).unwrap();
    optimiser.step(&variables, &gradients, length, 1e-3, 0).unwrap();
    let mut tensors: Vec<Tensor> = optimiser.moments().iter().flatten().cloned().collect();
    student.visit(&mut |_, tensor| tensors.push(tensor.clone()));
    let numbers = tensors.iter().flat_map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    (loss, length, numbers.collect())
}

/// Holds a step by candle's operations, which `other` makes, against that by hand.
fn hold_steps(other: impl Fn(&[LatentAttention], Mode) -> (Loss, f64, Vec<f32>)) {
    for layers in [tiny::shared_key(true), tiny::converted(true, 4, 6)] {
        for mode in [Mode::Attention, Mode::LowRank { rank: 2 }, Mode::Everything] {
            let (expected, got) = (one_step(&layers, mode, &Device::Cpu), other(&layers, mode));
            let near = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-4 * expected, "{mode:?}: {got}");
            near(got.0.divergence, expected.0.divergence);
            near(got.0.hidden, expected.0.hidden);
            near(got.1, expected.1);
            // AdamW's first step is the gradient's sign, so numbers without a gradient to speak of may go either way.
            let far = got.2.iter().zip(&expected.2).filter(|(got, expected)| (*got - *expected).abs() > 1e-5).count();
            assert!(far * 1000 < expected.2.len(), "{mode:?}: {far} of {}", expected.2.len());
        }
    }
}

#[test]
fn a_step_by_candles_operations_is_that_by_hand() {
    hold_steps(|layers, mode| by_candle(|| one_step(layers, mode, &Device::Cpu)));
}

/// `cargo test --release --package latent-attention-recover --features cuda -- --ignored`
#[test]
#[ignore = "needs a GPU"]
fn a_step_on_a_gpu_is_that_on_the_cpu() {
    let device = Device::new_cuda(0).unwrap();
    hold_steps(|layers, mode| one_step(layers, mode, &device));
}

#[test]
fn recomputing_blocks_gives_the_same_bits() {
    for mode in [Mode::Attention, Mode::Everything] {
        let (student, batch) = (tiny::student(&tiny::converted(true, 4, 10), mode), batch());
        let run = |recompute| -> (Loss, Gradients) {
            step(&tiny::original(), &student, &batch, Cache::Int4.format(), recompute).unwrap()
        };
        let ((loss, kept), (again, recomputed)) = (run(false), run(true));
        assert_eq!(loss, again);
        for (name, variable) in student.variables() {
            let bits = |gradients: &Gradients| -> Vec<f32> {
                gradients.get(&variable).unwrap().flatten_all().unwrap().to_vec1().unwrap()
            };
            assert_eq!(bits(&kept), bits(&recomputed), "{name}");
        }
    }
}

#[test]
fn training_helps_and_changes_nothing_else() {
    for mode in [Mode::Attention, Mode::LowRank { rank: 4 }, Mode::Everything] {
        let folder = tempfile::tempdir().unwrap();
        let student = tiny::student(&tiny::converted(false, 4, 10), mode);
        let before = numbers(&student);
        let options = Options { steps: 30, ..options(mode) };
        let records = with_run(&student, options, output(folder.path()), false, |run| {
            let mut run = run.unwrap();
            assert_eq!(run.run(&AtomicBool::new(false), &mut |_| {}).unwrap(), Ended::Finished);
            run.records().to_vec()
        });
        let measured: Vec<f64> = records
            .iter()
            .filter_map(|record| match record {
                Record::Evaluation { measured, .. } => Some(measured.divergence),
                Record::Step { .. } => None,
            })
            .collect();
        let (first, last) = (measured[0], measured[measured.len() - 1]);
        assert!(last < 0.8 * first, "{mode:?}: divergence {first} before, {last} after");
        let mut index = 0;
        student.visit(&mut |name, tensor| {
            let now: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            let same = now.iter().map(|x| x.to_bits()).eq(before[index].iter().copied());
            assert_eq!(same, !tensor.is_variable(), "{mode:?}: {name}");
            index += 1;
        });
        assert!(folder.path().join("loss.svg").exists());
    }
}

#[test]
fn merged_additions_are_what_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let student = tiny::student(&tiny::shared_key(true), Mode::LowRank { rank: 100 });
    with_run(&student, options(Mode::LowRank { rank: 100 }), output(folder.path()), false, |run| {
        run.unwrap().run(&AtomicBool::new(false), &mut |_| {}).unwrap();
    });
    let merged = tiny::student(&student.to_layers().unwrap(), Mode::Attention);
    let tokens = tiny::text(20, 5);
    let hidden = |student: &Student| -> Vec<Vec<f32>> {
        student.forward(&tokens, 20, Cache::Int4.format()).unwrap().to_vec2().unwrap()
    };
    assert_eq!(hidden(&student), hidden(&merged));
}

#[test]
fn a_full_rank_addition_can_follow_any_gradient() {
    // Of W + B A with A square and invertible, the gradient by B is that by W times A transposed, so none is lost.
    let batch = batch();
    let layers = tiny::shared_key(false);
    let (full, low) = (tiny::student(&layers, Mode::Attention), tiny::student(&layers, Mode::LowRank { rank: 100 }));
    let gradients = |student: &Student| step(&tiny::original(), student, &batch, None, false).unwrap().1;
    let (by_full, by_low) = (gradients(&full), gradients(&low));
    let find =
        |student: &Student, name: &str| student.variables().into_iter().find(|(n, _)| n.ends_with(name)).unwrap().1;
    let weight = by_full.get(&find(&full, "layers.0.attention.query_nope.weight")).unwrap().clone();
    let down = find(&low, "layers.0.attention.query_nope.lora_down");
    let expected: Vec<Vec<f32>> = weight.matmul(&down.t().unwrap().detach()).unwrap().to_vec2().unwrap();
    let up = find(&low, "layers.0.attention.query_nope.lora_up");
    let got: Vec<Vec<f32>> = by_low.get(&up).unwrap().to_vec2().unwrap();
    assert_eq!(got[0].len(), tiny::HIDDEN);
    for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
        assert!((got - expected).abs() < 1e-5, "{got} {expected}");
    }
}

#[test]
fn a_resumed_run_has_the_bits_of_an_uninterrupted_one() {
    for mode in [Mode::Attention, Mode::LowRank { rank: 2 }] {
        let fresh = || tiny::student(&tiny::converted(false, 4, 10), mode);
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let uninterrupted = fresh();
        with_run(&uninterrupted, options(mode), output(whole.path()), false, |run| {
            run.unwrap().run(&AtomicBool::new(false), &mut |_| {}).unwrap();
        });
        let (stop, stopped) = (AtomicBool::new(false), fresh());
        with_run(&stopped, options(mode), output(parts.path()), false, |run| {
            let ended = run.unwrap().run(&stop, &mut |record| {
                if matches!(record, Record::Step { step: 3, .. }) {
                    stop.store(true, Ordering::Relaxed);
                }
            });
            assert_eq!(ended.unwrap(), Ended::Stopped(3));
        });
        let resumed = fresh();
        let moved = Output { evaluate_every: 0, checkpoint_every: 1, recompute: true, ..output(parts.path()) };
        with_run(&resumed, options_of(parts.path()).unwrap(), moved, true, |run| {
            let mut run = run.unwrap();
            assert_eq!(run.step(), 3);
            assert_eq!(run.run(&AtomicBool::new(false), &mut |_| {}).unwrap(), Ended::Finished);
        });
        assert_eq!(numbers(&resumed), numbers(&uninterrupted));
        let read = |folder: &Path| std::fs::read(folder.join("checkpoint.safetensors")).unwrap();
        assert!(read(whole.path()) == read(parts.path()), "the checkpoints differ");
        let steps = |folder: &Path| {
            let text = std::fs::read_to_string(folder.join("log.jsonl")).unwrap();
            text.lines().filter(|line| line.contains("\"kind\":\"step\"")).count()
        };
        assert_eq!((steps(whole.path()), steps(parts.path())), (6, 6));
    }
}

#[test]
fn checkpoints_of_other_runs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let layers = tiny::converted(false, 4, 10);
    let o = options(Mode::Attention);
    with_run(&tiny::student(&layers, o.mode), o, output(folder.path()), false, |run| {
        run.unwrap().run(&AtomicBool::new(false), &mut |_| {}).unwrap();
    });
    let error = |layers: &[LatentAttention], options: Options, resume| {
        let student = tiny::student(layers, options.mode);
        let before = numbers(&student);
        let message =
            with_run(&student, options, output(folder.path()), resume, |run| format!("{:#}", run.err().unwrap()));
        assert_eq!(numbers(&student), before);
        message
    };
    assert!(error(&layers, o, false).contains("is there already"));
    let message = error(&layers, Options { rate: 1e-4, ..o }, true);
    assert!(message.contains("other options") && message.contains("0.0001"), "{message}");
    let mut others = layers.clone();
    others[0].scale *= 1.0;
    others[0].output.weight = tiny::converted(false, 4, 12)[1].output.weight.clone();
    let message = error(&others, o, true);
    assert!(message.contains("another model"), "{message}");
    let path = output(folder.path()).checkpoint();
    let bytes = std::fs::read(&path).unwrap();
    for cut in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert!(error(&layers, o, true).contains("no checkpoint"), "cut at {cut}");
    }
}

#[test]
fn training_that_diverges_keeps_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let layers = tiny::converted(false, 4, 10);
    let o = Options {
        rate: 1e30,
        warmup: 1,
        steps: 20,
        optimiser: AdamWOptions { epsilon: 1e-8, ..AdamWOptions::default() },
        ..options(Mode::Attention)
    };
    let output = Output { checkpoint_every: 1, ..output(folder.path()) };
    let student = tiny::student(&layers, o.mode);
    let message = with_run(&student, o, output.clone(), false, |run| {
        format!("{:#}", run.unwrap().run(&AtomicBool::new(false), &mut |_| {}).unwrap_err())
    });
    assert!(message.contains("diverged") && message.contains("checkpoint.safetensors"), "{message}");
    checkpoint::read_state(&output.checkpoint()).unwrap();
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (student, o) = (tiny::student(&tiny::shared_key(false), Mode::Attention), options(Mode::Attention));
    let bad = [
        Options { steps: 0, ..o },
        Options { batch: 0, ..o },
        Options { positions: 0, ..o },
        Options { rate: f64::NAN, ..o },
        Options { floor: 1.5, ..o },
        Options { optimiser: AdamWOptions { beta1: 1.0, ..o.optimiser }, ..o },
    ];
    for bad in bad {
        assert!(with_run(&student, bad, output(folder.path()), false, |run| run.is_err()), "{bad:?}");
    }
}

/// A student's attention, layer by layer, as the transformer of another crate calls it.
struct Steps<'a>(&'a [LatentAttention]);

impl AttentionStep for Steps<'_> {
    fn forward(&mut self, layer: usize, normed: &[f32], positions: std::ops::Range<usize>) -> Result<Vec<f32>> {
        // Attention written out in f64, without a cache.
        let (weights, tokens) = (&self.0[layer], positions.len());
        let (g, tables) = (weights.geometry, tiny::tables());
        let mut q_rope = weights.query_rope.apply(normed)?;
        let mut k_rope = weights.key_rope.apply(normed)?;
        for (rows, heads) in [(&mut q_rope, g.query_heads), (&mut k_rope, g.rope_heads)] {
            for (i, head) in rows.chunks_exact_mut(g.rope_dim).enumerate() {
                let rope_head = i % heads / (heads / g.rope_heads);
                let frequencies = weights.frequencies.head(rope_head);
                latent_attention::rope::rotate_head(head, frequencies, weights.pairing, &tables, i / heads);
            }
        }
        let q_nope = weights.query_nope.apply(normed)?;
        let mut latent = weights.down.apply(normed)?;
        if let Some(bias) = &weights.latent_bias {
            latent.chunks_exact_mut(g.latent_rank).for_each(|row| row.iter_mut().zip(bias).for_each(|(x, b)| *x += b));
        }
        let up = |matrix: &latent_attention::weights::Matrix, row: usize, s: usize| -> f64 {
            let latent = &latent[s * g.latent_rank..][..g.latent_rank];
            matrix.row(row).iter().zip(latent).map(|(w, c)| f64::from(*w) * f64::from(*c)).sum()
        };
        let mut heads = Vec::new();
        for t in 0..tokens {
            for h in 0..g.query_heads {
                let (group, rope_head) = (g.kv_head_of(h), g.rope_head_of(h));
                let score = |s: usize| -> f64 {
                    let q = &q_rope[(t * g.query_heads + h) * g.rope_dim..][..g.rope_dim];
                    let k = &k_rope[(s * g.rope_heads + rope_head) * g.rope_dim..][..g.rope_dim];
                    let rope: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                    let q = &q_nope[(t * g.query_heads + h) * g.nope_dim..][..g.nope_dim];
                    let nope = |i: usize| f64::from(q[i]) * up(&weights.up_key, group * g.nope_dim + i, s);
                    (weights.scale * (rope + (0..g.nope_dim).map(nope).sum::<f64>())).exp()
                };
                let scores: Vec<f64> = (0..=t).map(score).collect();
                let total: f64 = scores.iter().sum();
                for i in 0..g.value_dim {
                    let row = group * g.value_dim + i;
                    let bias = weights.value_bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]));
                    let value = |s: usize| scores[s] / total * (up(&weights.up_value, row, s) + bias);
                    heads.push((0..=t).map(value).sum::<f64>() as f32);
                }
            }
        }
        Ok(weights.output.apply(&heads)?)
    }

    fn reset(&mut self) {}
}

#[test]
fn an_evaluation_is_what_another_implementation_finds() {
    let (original, evaluation) = (tiny::original(), tiny::text(38, 2));
    let transformer =
        Transformer::new(tiny::embedding(), tiny::blocks().into_iter().map(Ok), &tiny::final_norm(), None).unwrap();
    for layers in [tiny::converted(true, 4, 10), tiny::shared_key(true)] {
        let held_out = HeldOut::new(&original, &evaluation, Some(1), 20).unwrap();
        let got = held_out.measure(&original, &tiny::student(&layers, Mode::Attention), None).unwrap();
        let mut loss = 0.0;
        for window in evaluation.chunks(19) {
            let tokens = [&[1], window].concat();
            let hidden = transformer.forward(&mut Steps(&layers), &tokens[..19], 0).unwrap();
            loss += transformer.log_likelihood_loss(&hidden, window).unwrap();
        }
        assert_eq!(got.tokens, 38);
        assert!((got.perplexity.ln() - loss / 38.0).abs() < 1e-5, "{} and {}", got.perplexity.ln(), loss / 38.0);
    }
    assert!(HeldOut::new(&original, &[], Some(1), 20).is_err());
    assert!(HeldOut::new(&original, &evaluation, Some(1), 1).is_err());
}

#[test]
fn the_original_is_its_own_best_student() {
    let original = tiny::original();
    let student = tiny::student(&tiny::converted(false, 8, 16), Mode::Attention);
    let held_out = HeldOut::new(&original, &tiny::text(38, 2), Some(1), 20).unwrap();
    let measured = held_out.measure(&original, &student, None).unwrap();
    assert!(measured.divergence.abs() < 1e-6, "{measured:?}");
    assert!((measured.perplexity / measured.original_perplexity - 1.0).abs() < 1e-5);
    // A tensor that is a variable is no part of the original.
    assert!(variable(original.frame().head()).unwrap().is_variable() && !original.frame().head().track_op());
}
