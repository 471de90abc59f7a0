//! What the sizes of the known models come to.

use latent_attention::cache::{CacheFormat, Group};
use latent_attention::{Error, Geometry};

/// Name, (H, G, L, Gr, R), uncompressed, bf16 and int4 bytes per token: the table of MHA2MLA's paper and of the
/// models' configurations.
const TABLE: &[(&str, [usize; 5], usize, usize, f64)] = &[
    ("llama2-7b-d64", [32, 32, 2048, 32, 16], 16384, 5120, 1280.0),
    ("llama2-7b-d32", [32, 32, 1024, 32, 16], 16384, 3072, 768.0),
    ("llama2-7b-d16", [32, 32, 512, 32, 16], 16384, 2048, 512.0),
    ("llama2-13b-d64", [40, 40, 2560, 40, 16], 20480, 6400, 1600.0),
    ("llama3-8b-d64", [32, 8, 512, 8, 16], 4096, 1280, 320.0),
    ("smollm-135m-d32", [9, 3, 96, 3, 8], 768, 240, 60.0),
    ("smollm-135m-d16", [9, 3, 48, 3, 8], 768, 144, 36.0),
    ("smollm-135m-d8", [9, 3, 24, 3, 8], 768, 96, 24.0),
    ("smollm-360m-d32", [15, 5, 160, 5, 8], 1280, 400, 100.0),
    ("smollm-360m-d16", [15, 5, 80, 5, 8], 1280, 240, 60.0),
    ("smollm-360m-d8", [15, 5, 40, 5, 8], 1280, 160, 40.0),
    ("smollm-1.7b-d32", [32, 32, 1024, 32, 8], 8192, 2560, 640.0),
    ("smollm-1.7b-d16", [32, 32, 512, 32, 8], 8192, 1536, 384.0),
    ("smollm-1.7b-d8", [32, 32, 256, 32, 8], 8192, 1024, 256.0),
    ("deepseek-v2-lite", [16, 16, 512, 1, 64], 10240, 1152, 288.0),
    ("deepseek-v3", [128, 128, 512, 1, 64], 81920, 1152, 288.0),
    ("minicpm3-4b", [40, 40, 256, 1, 32], 12800, 576, 144.0),
    ("mistral-small-4", [32, 32, 256, 1, 64], 16384, 640, 160.0),
];

#[test]
fn named_models_have_their_published_sizes() {
    assert_eq!(TABLE.len(), Geometry::NAMED.len());
    for &(name, [h, g, l, gr, r], uncompressed, bf16, int4) in TABLE {
        let geometry = Geometry::named(name).unwrap();
        let sizes =
            [geometry.query_heads, geometry.kv_heads, geometry.latent_rank, geometry.rope_heads, geometry.rope_dim];
        assert_eq!(sizes, [h, g, l, gr, r], "{name}");
        assert_eq!(geometry.uncompressed_bytes_per_token(), uncompressed, "{name}");
        assert_eq!(CacheFormat::BF16.code_bytes_per_token(&geometry), bf16 as f64, "{name}");
        assert_eq!(CacheFormat::BF16.bytes_per_token(&geometry).unwrap(), bf16, "{name}: bf16 has no overhead");
        assert_eq!(CacheFormat::INT4.code_bytes_per_token(&geometry), int4, "{name}");
    }
}

#[test]
fn saved_memory_is_what_the_paper_says() {
    let saved = |geometry: Geometry, format: CacheFormat| {
        let fraction = format.code_bytes_per_token(&geometry) / geometry.uncompressed_bytes_per_token() as f64;
        format!("{:.2}", 100.0 * (1.0 - fraction))
    };
    for (d_kv, bf16, int4) in [(64, "68.75", "92.19"), (32, "81.25", "95.31"), (16, "87.50", "96.88")] {
        let geometry = Geometry::llama2_7b(d_kv).unwrap();
        assert_eq!(saved(geometry, CacheFormat::BF16), bf16);
        assert_eq!(saved(geometry, CacheFormat::INT4), int4); // The paper truncates 96.875 to 96.87.
    }
    for build in [Geometry::smollm_135m, Geometry::smollm_360m, Geometry::smollm_1_7b] {
        for (d_kv, bf16, int4) in [(32, "68.75", "92.19"), (16, "81.25", "95.31"), (8, "87.50", "96.88")] {
            let geometry = build(d_kv).unwrap();
            assert_eq!(saved(geometry, CacheFormat::BF16), bf16);
            assert_eq!(saved(geometry, CacheFormat::INT4), int4);
        }
    }
}

#[test]
fn all_in_bytes_count_every_scale_and_all_padding() {
    for (name, default, whole, group64) in [
        ("llama2-7b-d64", 1360, 1300, 1440),
        ("llama2-7b-d32", 840, 780, 864),
        ("llama2-7b-d16", 580, 520, 576),
        ("llama3-8b-d64", 340, 328, 360),
        ("deepseek-v3", 300, 296, 324),
        ("smollm-135m-d32", 72, 72, 76), // 12 rope bytes are padded to 16.
        ("smollm-135m-d16", 56, 56, 56), // 24 and 12 are.
        ("smollm-135m-d8", 40, 40, 40),
    ] {
        let geometry = Geometry::named(name).unwrap();
        let bytes = |format: CacheFormat| format.bytes_per_token(&geometry).unwrap();
        let got = [CacheFormat::INT4, CacheFormat::int4(Group::Whole), CacheFormat::int4(Group::G64)].map(bytes);
        assert_eq!(got, [default, whole, group64], "{name}");
    }
}

#[test]
fn heads_map_to_their_group() {
    let gqa = Geometry::llama3_8b(64).unwrap();
    assert_eq!((gqa.kv_head_of(3), gqa.kv_head_of(4), gqa.rope_head_of(31)), (0, 1, 7));
    let deepseek = Geometry::deepseek_v3().unwrap();
    assert_eq!((deepseek.kv_head_of(127), deepseek.rope_head_of(127)), (127, 0));
}

#[test]
fn inconsistent_sizes_are_named() {
    let message = |result: Result<Geometry, Error>| result.unwrap_err().to_string();
    let good = Geometry::llama3_8b(64).unwrap();
    let check = |change: fn(&mut Geometry), expected: &str| {
        let mut geometry = good;
        change(&mut geometry);
        assert_eq!(message(geometry.validate()), expected);
    };
    check(|g| g.kv_heads = 5, "geometry: kv_heads must be a divisor of query_heads = 32, got 5");
    check(|g| g.nope_dim = usize::MAX, "geometry: nope_dim must be at most 1048576, got 18446744073709551615");
    check(|g| g.value_dim = 1 << 21, "geometry: value_dim must be at most 1048576, got 2097152");
    check(|g| g.rope_heads = 3, "geometry: rope_heads must be a divisor of kv_heads = 8, got 3");
    check(|g| g.rope_dim = 15, "geometry: rope_dim must be even, got 15");
    check(|g| g.query_heads = 0, "geometry: query_heads must be at least 1, got 0");
    check(|g| (g.rope_dim, g.nope_dim) = (0, 0), "geometry: nope_dim must be at least 1 when rope_dim is 0, got 0");
    assert_eq!(message(good.with_latent_rank(0)), "geometry: latent_rank must be at least 1, got 0");
    assert_eq!(message(Geometry::mha2mla(8, 8, 64, 66, 8)), "geometry: rope_dim must be at most head_dim = 64, got 66");
    assert!(message(Geometry::named("llama9")).contains("known names are llama2-7b-d64, "));
}
