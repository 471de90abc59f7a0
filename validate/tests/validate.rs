//! The validation: what is right passes, what is damaged fails or is refused, and is named.

use std::path::Path;

use latent_attention::cache::{CacheFormat, Group, RangeSetting, RopeFormat};
use latent_attention::device::Device;
use latent_attention::rope::Pairing;
use latent_attention::{Geometry, Result};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use safetensors::SafeTensors;
use validate::{Dump, Kind, LATENT_FORMATS, Report, Validation, by_name, read_dump};

/// A small layer and batch.
fn small() -> Validation {
    let mut validation = Validation::new(Geometry::mha2mla(4, 2, 12, 4, 12).unwrap(), CacheFormat::INT4);
    (validation.page_size, validation.seq_lens) = (8, vec![9, 0, 30]);
    validation
}

/// Runs a validation and dumps it.
fn dump(validation: &Validation, dir: &Path) -> Report {
    let (device, mut dump) = (Device::simulated(), Dump::create(dir).unwrap());
    let mut report = Report::new("a run".into());
    for kind in Kind::ALL {
        let case = validation.case(kind).unwrap().run(&device).unwrap();
        report.comparisons.extend(case.check().unwrap());
        dump.add(&case).unwrap();
    }
    dump.publish().unwrap();
    report
}

/// Checks a dump.
fn check(dir: &Path) -> Result<Report> {
    let (cases, absent) = read_dump(dir)?;
    let mut report = Report::new("a dump".into());
    for case in cases {
        report.comparisons.extend(case?.check()?);
    }
    report.absent = absent;
    Ok(report)
}

/// What checking a dump is refused with.
#[track_caller]
fn refusal(dir: &Path) -> String {
    check(dir).expect_err("a damaged dump").to_string()
}

fn file(dir: &Path, kind: Kind) -> std::path::PathBuf {
    dir.join(format!("{}.safetensors", kind.name()))
}

/// Changes a file.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Replaces text in a file's header by text of the same length.
fn edit_header(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    edit(path, |bytes| {
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect(from);
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    });
}

/// Overwrites the last element of a tensor. Returns its index.
fn damage(path: &Path, tensor: &str, element: &[u8]) -> Vec<usize> {
    let mut index = Vec::new();
    edit(path, |bytes| {
        let (header, metadata) = SafeTensors::read_metadata(bytes).unwrap();
        let info = metadata.info(tensor).unwrap().clone();
        let end = 8 + header + info.data_offsets.1;
        bytes[end - element.len()..end].copy_from_slice(element);
        index = info.shape.iter().map(|size| size - 1).collect();
    });
    index
}

#[test]
fn right_kernels_pass() {
    let mut odd = small();
    odd.geometry = Geometry::deepseek(3, 23, 6, 5, 7).unwrap();
    (odd.format, odd.pairing) = (CacheFormat::BF16, Pairing::Interleaved);
    let mut grouped_queries = small();
    grouped_queries.geometry = Geometry::smollm_135m(8).unwrap();
    grouped_queries.format = CacheFormat::INT4.with_rope(RopeFormat::Int8);
    (grouped_queries.page_size, grouped_queries.seed) = (16, 7);
    let mut no_rotation = small();
    no_rotation.geometry = Geometry::mha2mla(6, 1, 8, 0, 9).unwrap();
    no_rotation.query_tokens = vec![0, 2];
    let mut only_rotation = small();
    only_rotation.geometry = Geometry::mha2mla(2, 2, 8, 8, 4).unwrap();
    (only_rotation.page_size, only_rotation.fixed_tokens) = (64, 1);
    let mut groups = small();
    groups.format = CacheFormat::int4(Group::G32);
    let mut least_squares = small();
    least_squares.geometry = Geometry::smollm_135m(32).unwrap();
    least_squares.format = CacheFormat::INT4.with_range(RangeSetting::Mse);
    for validation in [small(), odd, grouped_queries, no_rotation, only_rotation, groups, least_squares] {
        for device in [Device::simulated(), Device::cpu().unwrap()] {
            let report = validation.report(&device).unwrap();
            assert!(report.passed(), "{report}");
            let of = |kind: Kind| report.comparisons.iter().filter(|c| c.case == kind.name()).count();
            assert!(Kind::ALL.into_iter().all(|kind| of(kind) > 0), "{report}");
        }
    }
}

#[test]
fn a_dump_is_as_good_as_the_run_that_it_is_of() {
    let dir = tempfile::tempdir().unwrap();
    let run = dump(&small(), &dir.path().join("dump"));
    let read = check(&dir.path().join("dump")).unwrap();
    assert_eq!(read.comparisons, run.comparisons);
    assert!(read.passed() && read.absent.is_empty());
    // Bits where they are promised, a bound everywhere else.
    assert!(read.comparisons.iter().any(|c| c.bit_equal == Some(true)));
    assert!(read.comparisons.iter().any(|c| c.lse_error.is_some_and(|error| error > 0.0)));
    assert!(read.comparisons.iter().any(|c| c.max_abs > 0.0 && c.max_rel > 0.0 && c.cosine > 0.0));
}

#[test]
fn a_dump_says_how_ranges_were_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let mut validation = small();
    validation.geometry = Geometry::smollm_135m(32).unwrap();
    validation.format = CacheFormat::INT4.with_range(RangeSetting::Mse);
    let folder = dir.path().join("dump");
    dump(&validation, &folder);
    assert!(check(&folder).unwrap().passed());
    // Without a word of it, as dumps once were, they are from minimum to maximum; these are not.
    edit_header(&file(&folder, Kind::RopeAppend), "range_setting", "former_format");
    assert!(!check(&folder).unwrap().passed());
}

#[test]
fn a_seed_makes_the_same_bytes_and_another_others() {
    let dir = tempfile::tempdir().unwrap();
    let [first, again, other] = [("first", 1), ("again", 1), ("other", 2)].map(|(name, seed)| {
        let mut validation = small();
        validation.seed = seed;
        dump(&validation, &dir.path().join(name));
        Kind::ALL.map(|kind| std::fs::read(file(&dir.path().join(name), kind)).unwrap())
    });
    assert!(first == again);
    assert!(first.iter().zip(&other).all(|(first, other)| first != other));
}

#[test]
fn a_damaged_output_fails_and_is_named() {
    let bf16 = 200f32.to_le_bytes()[2..].to_vec();
    let (f32, one) = (200f32.to_le_bytes().to_vec(), 1u32.to_le_bytes().to_vec());
    for (kind, output, element) in [
        (Kind::RopeAppend, "q_rotated", &bf16),
        (Kind::RopeAppend, "cache", &vec![0x55]),
        (Kind::RopeAppend, "counters", &vec![3, 0, 0, 0, 0, 0, 0, 0]),
        (Kind::RopeAppendNorm, "cache", &vec![0x55]),
        (Kind::AbsorbQueryFew, "q_latent", &bf16),
        (Kind::AbsorbQueryMany, "q_latent", &bf16),
        (Kind::ExpandOutputFew, "out", &bf16),
        (Kind::ExpandOutputMany, "out", &bf16),
        (Kind::ScheduleBalanced, "item_count", &one),
        (Kind::ScheduleFixed, "split_starts", &one),
        (Kind::DecodeBalanced, "o_latent", &bf16),
        (Kind::DecodeBalanced, "lse", &f32),
        (Kind::DecodeFixed, "lse", &f32::NAN.to_le_bytes().to_vec()),
        (Kind::Combine, "o_latent", &bf16),
        (Kind::Combine, "lse", &f32),
        (Kind::UpProject, "keys", &bf16),
        (Kind::UpProject, "values", &f32::INFINITY.to_le_bytes()[2..].to_vec()),
        (Kind::Layer, "out", &bf16),
        (Kind::Layer, "cache", &vec![0x55]),
        (Kind::Gather, "gathered", &bf16),
        (Kind::AbsorbQueryInvariant, "q_latent", &bf16),
        (Kind::ExpandOutputInvariant, "out", &bf16),
        (Kind::CopyPages, "cache", &vec![0x55]),
        (Kind::CopyPages, "counters", &vec![0; 8]),
        (Kind::HeadNorm, "q_nope_normed", &bf16),
        (Kind::HeadNorm, "key_factors", &f32),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("dump");
        let mut only = Dump::create(&folder).unwrap();
        only.add(&small().case(kind).unwrap().run(&Device::simulated()).unwrap()).unwrap();
        only.publish().unwrap();
        let index = damage(&file(&folder, kind), output, element);
        let report = check(&folder).unwrap();
        assert!(!report.passed() && report.absent.len() == Kind::ALL.len() - 1);
        for comparison in &report.comparisons {
            assert_eq!(comparison.passed, comparison.output != output, "{report}");
            if !comparison.passed {
                assert_eq!(comparison.worst.as_ref().unwrap().index, index, "{report}");
                assert!(report.to_string().contains(&format!("FAILED  {index:?}")), "{report}");
            }
        }
    }
}

#[test]
fn a_query_that_saw_nothing_has_to_say_so() {
    // Its log-sum-exp is minus infinity, which no finite number is near to.
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("dump");
    let mut validation = small();
    validation.seq_lens = vec![3, 0];
    dump(&validation, &folder);
    let index = damage(&file(&folder, Kind::DecodeFixed), "lse", &(-3e38f32).to_le_bytes());
    let report = check(&folder).unwrap();
    let lse = report.comparisons.iter().find(|c| c.case == "decode-fixed" && c.output == "lse").unwrap();
    let worst = lse.worst.as_ref().unwrap();
    assert!(!lse.passed && worst.index == index && worst.want == f64::NEG_INFINITY, "{report}");
    assert_eq!(lse.lse_error, Some(f64::INFINITY));
}

#[test]
fn an_infinite_latent_that_nobody_sees_excuses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("dump");
    let mut validation = small();
    (validation.format, validation.seq_lens, validation.query_tokens) = (CacheFormat::BF16, vec![3, 3], vec![1, 0]);
    dump(&validation, &folder);
    let path = file(&folder, Kind::DecodeFixed);
    let whole = std::fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&whole).unwrap();
    let start = |tensor: &str| 8 + header + metadata.info(tensor).unwrap().data_offsets.0;
    // The second sequence's first page: rows of the table have two entries of 4 bytes.
    let page = usize::from(whole[start("page_table") + 8]);
    let latent = start("cache") + page * metadata.info("cache").unwrap().shape[1];
    edit(&path, |bytes| bytes[latent..latent + 2].copy_from_slice(&f32::INFINITY.to_le_bytes()[2..]));
    let report = check(&folder).unwrap();
    assert!(report.passed(), "{report}");
    let index = damage(&path, "o_latent", &0.5f32.to_le_bytes()[2..]);
    let report = check(&folder).unwrap();
    let failed: Vec<_> = report.comparisons.iter().filter(|comparison| !comparison.passed).collect();
    assert_eq!(failed.len(), 1, "{report}");
    assert_eq!(failed[0].worst.as_ref().unwrap().index, index, "{report}");
}

#[test]
fn a_byte_of_a_cache_is_said_to_be_whose_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("dump");
    dump(&small(), &folder);
    damage(&file(&folder, Kind::Layer), "cache", &[0x55]);
    let report = check(&folder).unwrap().to_string();
    // Token 7 is the page's last; one scale for the latent, one for the key, 4 bytes each.
    assert!(report.contains("(byte 7 of the scales of the page's token 7)"), "{report}");
}

#[test]
fn missing_and_unfit_tensors_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("dump");
    dump(&small(), &folder);
    let path = file(&folder, Kind::DecodeBalanced);
    let whole = std::fs::read(&path).unwrap();
    let refused = |from: &str, to: &str| {
        std::fs::write(&path, &whole).unwrap();
        edit_header(&path, from, to);
        refusal(&folder)
    };
    let tensor = |name: &str| format!("tensor `{name}` in {}: ", path.display());
    let message = refused("\"lse\"", "\"LSE\"");
    assert_eq!(message, tensor("lse") + "expected [4, 4] F32, got no such tensor");
    let message = refused("\"lse\":{\"dtype\":\"F32\"", "\"lse\":{\"dtype\":\"I32\"");
    assert_eq!(message, tensor("lse") + "expected [4, 4] F32, got [4, 4] I32");
    let message = refused("\"shape\":[4,4,24]", "\"shape\":[4,3,32]");
    assert!(message.starts_with(&tensor("o_latent")) && message.ends_with("[4, 4, 24] BF16, got [4, 3, 32] BF16"));
    let norm = file(&folder, Kind::Layer);
    let whole_layer = std::fs::read(&norm).unwrap();
    edit_header(&norm, "norm_gain", "norm_loss");
    std::fs::write(&path, &whole).unwrap();
    let message = refusal(&folder);
    assert!(message.starts_with("tensor `norm_gain` in") && message.ends_with("got no such tensor"), "{message}");
    std::fs::write(&norm, whole_layer).unwrap();
    let message = refused("\"shape\":[3,5]", "\"shape\":[15] ");
    assert_eq!(message, tensor("page_table") + "expected 2 dimensions, got [15]");
    let message = refused("decode-balanced", "decode-Balanced");
    assert!(message.contains("metadata `latent-attention`: unknown variant `decode-Balanced`"), "{message}");
    let message = refused("query_heads\\\":4", "query_heads\\\":3");
    assert!(message.ends_with("geometry: kv_heads must be a divisor of query_heads = 3, got 2"), "{message}");
    let message = refused("page_size\\\":8", "page_size\\\":9");
    assert!(message.ends_with("page size 9: must be one of [8, 16, 32, 64] tokens"), "{message}");
    let message = refused("\"int4\\\"", "\"int3\\\"");
    assert!(message.contains("latent format `int3`: known names are bf16, int4, int4-g32"), "{message}");
    let message = refused("min-max", "max-min");
    assert!(message.ends_with("range setting `max-min`: known names are min-max, mse"), "{message}");
    let message = refused("latent-attention", "latent-retention");
    assert!(message.ends_with("has no metadata `latent-attention`"), "{message}");
}

#[test]
fn inputs_that_do_not_belong_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("dump");
    dump(&small(), &folder);
    let refused = |kind: Kind, tensor: &str, element: &[u8]| {
        let whole = std::fs::read(file(&folder, kind)).unwrap();
        damage(&file(&folder, kind), tensor, element);
        let message = refusal(&folder);
        std::fs::write(file(&folder, kind), whole).unwrap();
        message
    };
    let message = refused(Kind::DecodeFixed, "seq_lens", &60i32.to_le_bytes());
    assert_eq!(message, "page table: expected 8 pages for the 60 tokens of sequence 2, got 5 pages");
    let message = refused(Kind::UpProject, "seq_lens", &(-1i32).to_le_bytes());
    assert_eq!(message, "seq_lens [2] = -1 is outside of 0 and above");
    let message = refused(Kind::UpProject, "token_starts", &40i32.to_le_bytes());
    assert!(message.ends_with("expected the prefix sums of seq_lens, [0, 9, 9, 39], got [0, 9, 9, 40]"), "{message}");
    let message = refused(Kind::Gather, "first_tokens", &31i32.to_le_bytes());
    assert!(message.contains("expected ascending starts from 0 and tokens of the sequences, got [0, "), "{message}");
    let message = refused(Kind::Gather, "token_starts", &(-1i32).to_le_bytes());
    assert!(message.starts_with("token_starts and first_tokens in ") && message.contains(", -1] and ["), "{message}");
    let message = refused(Kind::RopeAppend, "slots", &1000i64.to_le_bytes());
    assert_eq!(message, "slots [3] = 1000 is outside of -1 or 0..64 slots");
    let message = refused(Kind::Layer, "frequency_index", &9u32.to_le_bytes());
    assert_eq!(message, "frequency index [3] = 9 is outside of 0..5 frequencies");
    // More query tokens than rows; many more than there is memory for.
    let message = refused(Kind::ScheduleFixed, "query_starts", &(i32::MAX - 1).to_le_bytes());
    assert!(message.contains("tensor `split_starts`") && message.contains("expected [2147483647] I32"), "{message}");
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("dump");
    let mut validation = small();
    validation.seq_lens = vec![3];
    dump(&validation, &folder);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for kind in Kind::ALL {
        let path = file(&folder, kind);
        let whole = std::fs::read(&path).unwrap();
        let (header, _) = SafeTensors::read_metadata(&whole).unwrap();
        for cut in (0..whole.len()).step_by(97) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(refusal(&folder).contains(kind.name()), "cut at {cut}");
        }
        // In a folder of its own: others would be checked each time.
        let alone = dir.path().join(kind.name());
        std::fs::create_dir(&alone).unwrap();
        for _ in 0..200 {
            let mut bytes = whole.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..8 + header);
                bytes[at] = rng.random();
            }
            std::fs::write(file(&alone, kind), &bytes).unwrap();
            // Damage that leaves a right file right is possible.
            let _ = check(&alone).map(|report| report.to_string());
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert!(check(&folder).unwrap().passed());
}

#[test]
fn nothing_is_left_of_a_dump_that_was_not_finished() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("dump");
    let mut unfinished = Dump::create(&folder).unwrap();
    unfinished.add(&small().case(Kind::Combine).unwrap()).unwrap();
    drop(unfinished);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn folders_that_will_not_do_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let message = refusal(dir.path());
    assert!(message.ends_with("holds none of the files of a dump, like rope-append.safetensors"), "{message}");
    std::fs::write(dir.path().join("letter.txt"), "").unwrap();
    let refused = |path: &Path| Dump::create(path).unwrap_err().to_string();
    let message = refused(dir.path());
    assert_eq!(message, format!("dump in {}: there is something in it already", dir.path().display()));
    assert_eq!(refused(Path::new("no/such/..")), "dump in no/such/..: needs a folder with a name of its own");
    let below = dir.path().join("letter.txt/dump");
    assert!(refused(&below).contains("letter.txt"));
    // A file of one case under the name of another.
    let folder = dir.path().join("dump");
    dump(&small(), &folder);
    std::fs::copy(file(&folder, Kind::Combine), file(&folder, Kind::Layer)).unwrap();
    assert!(refusal(&folder).ends_with("layer.safetensors: says that it is combine"));
}

#[test]
fn batches_and_names_that_make_no_sense_are_refused() {
    let refused = |change: &dyn Fn(&mut Validation)| {
        let mut validation = small();
        change(&mut validation);
        validation.case(Kind::Layer).unwrap_err().to_string()
    };
    assert_eq!(refused(&|v| v.seq_lens.clear()), "batch: needs a sequence with a query token");
    assert_eq!(refused(&|v| v.query_tokens = vec![0]), "batch: needs a sequence with a query token");
    assert_eq!(refused(&|v| v.query_tokens.clear()), "batch: needs a sequence with a query token");
    assert_eq!(refused(&|v| v.seq_lens = vec![usize::MAX, 2]), "batch: must have less than 2^31 tokens");
    assert_eq!(refused(&|v| v.fixed_tokens = 0), "splits of 0 tokens: must be at least 1");
    assert_eq!(refused(&|v| v.page_size = 7), "page size 7: must be one of [8, 16, 32, 64] tokens");
    assert!(refused(&|v| v.geometry.kv_heads = 3).starts_with("geometry: kv_heads"));
    let message = by_name("latent format", &LATENT_FORMATS, "int5").unwrap_err().to_string();
    assert_eq!(message, "latent format `int5`: known names are bf16, int4, int4-g32, int4-g64, int4-g128");
}

#[test]
fn a_report_without_outputs_has_not_passed() {
    assert!(!Report::new("nothing".into()).passed());
}
