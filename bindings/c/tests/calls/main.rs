//! The C library's functions as a C program calls them: what they refuse, and how they say so.
//! (`cargo xtask test` compiles and runs `examples/decode.c`, which shows what they do; here are the operations
//! that it has no use for.)

mod cpu;
mod engines;
mod ranges;

use std::ffi::{CStr, CString};
use std::ptr::{null, null_mut};

use half::bf16;
use latent_attention_c::*;

/// The message of the last failure.
fn message() -> String {
    // SAFETY: the text stays until another call of this thread fails.
    unsafe { CStr::from_ptr(la_last_error()) }.to_str().unwrap().into()
}

/// What a creating function makes.
fn created<T>(create: impl FnOnce(*mut *mut T) -> LaStatus) -> *mut T {
    let mut handle = null_mut();
    assert_eq!(create(&mut handle), LaStatus::Ok, "{}", message());
    handle
}

fn geometry() -> LaGeometry {
    LaGeometry { query_heads: 4, kv_heads: 2, latent_rank: 32, rope_heads: 2, rope_dim: 8, nope_dim: 8, value_dim: 16 }
}

fn absorb_config() -> LaAbsorbConfig {
    LaAbsorbConfig { geometry: geometry(), batch_invariant: 0 }
}

fn format() -> LaCacheFormat {
    LaCacheFormat {
        latent_row: LA_ROW_INT4,
        latent_group: 512,
        rope_row: LA_ROW_INT4,
        rope_group: 32,
        page_size: 16,
        range: LA_RANGE_MIN_MAX,
    }
}

/// A simulated device and its stream; destroyed with the test's process.
fn device() -> (*mut LaDevice, *mut LaStream) {
    // SAFETY: as the header asks.
    unsafe {
        let device = created(|out| la_device_simulated(out));
        (device, created(|out| la_stream_create(device, out)))
    }
}

/// So many bytes of device memory, zeros.
fn memory(device: *const LaDevice, bytes: usize) -> u64 {
    let mut address = 0;
    // SAFETY: as the header asks.
    unsafe {
        let buffer = created(|out| la_buffer_create(device, bytes, out));
        assert_eq!(la_buffer_address(buffer, &mut address), LaStatus::Ok);
        assert_eq!(la_upload(device, address, vec![0u8; bytes].as_ptr().cast(), bytes), LaStatus::Ok);
    }
    address
}

/// An element, with what C calls its type.
trait Typed: Copy + Default {
    const DTYPE: u32;
}

macro_rules! typed {
    ($($ty:ty, $dtype:ident;)*) => {$(
        impl Typed for $ty {
            const DTYPE: u32 = $dtype;
        }
    )*};
}

typed! { u8, LA_DTYPE_U8; i32, LA_DTYPE_I32; u32, LA_DTYPE_U32; i64, LA_DTYPE_I64; f32, LA_DTYPE_F32; bf16, LA_DTYPE_BF16; }

/// These elements in device memory.
fn upload<T: Typed>(device: *const LaDevice, values: &[T]) -> LaArray {
    let address = memory(device, size_of_val(values));
    // SAFETY: as the header asks.
    let status = unsafe { la_upload(device, address, values.as_ptr().cast(), size_of_val(values)) };
    assert_eq!(status, LaStatus::Ok, "{}", message());
    LaArray { address, elements: values.len(), dtype: T::DTYPE }
}

/// What an array of device memory holds.
fn download<T: Typed>(device: *const LaDevice, array: LaArray) -> Vec<T> {
    let mut values = vec![T::default(); array.elements];
    // SAFETY: as the header asks.
    let status = unsafe { la_download(device, array.address, values.as_mut_ptr().cast(), size_of_val(&*values)) };
    assert_eq!(status, LaStatus::Ok, "{}", message());
    values
}

/// So many bytes from an address on.
fn bytes(address: u64, elements: usize) -> LaArray {
    LaArray { address, elements, dtype: LA_DTYPE_U8 }
}

fn dense(memory: LaArray, sizes: [usize; 3]) -> LaTensor {
    LaTensor { memory, sizes, strides: [sizes[1] * sizes[2], sizes[2]] }
}

/// Merges two parts of latents of two numbers.
fn merge(device: *const LaDevice, stream: *const LaStream, args: &LaCombineArgs) {
    // SAFETY: as the header asks.
    unsafe {
        let config = LaCombineConfig { latent_rank: 2, max_splits: 2 };
        let combine = created(|out| la_combine_create(device, &config, out));
        assert_eq!(la_combine_run(combine, stream, args), LaStatus::Ok, "{}", message());
        la_combine_destroy(combine);
    }
}

#[test]
fn combine_merges_parts() {
    let (device, stream) = device();
    let args = LaCombineArgs {
        rows: 1,
        splits: 2,
        o_partial: upload(device, &[1.0f32, 2.0, 3.0, 4.0]),
        lse_partial: upload(device, &[0.5f32, 0.5]),
        o_latent: upload(device, &[bf16::NAN; 2]),
        lse: upload(device, &[f32::NAN]),
    };
    merge(device, stream, &args);
    assert_eq!(download::<bf16>(device, args.o_latent), [2.0, 3.0].map(bf16::from_f32));
    let lse: Vec<f32> = download(device, args.lse);
    assert!((lse[0] - (0.5 + std::f32::consts::LN_2)).abs() < 1e-6, "{lse:?}");
}

#[test]
fn up_project_finds_its_tokens_by_a_csr_page_table() {
    let (device, stream) = device();
    let geometry = LaGeometry { rope_heads: 1, ..geometry() };
    let format = LaCacheFormat { latent_row: LA_ROW_BF16, rope_row: LA_ROW_BF16, page_size: 8, ..Default::default() };
    // Two pages of 8 tokens: latents of 32 numbers, then rotated keys of 8. The first one is no one's.
    let [one, two] = [1.0, 2.0].map(bf16::from_f32);
    let page = [vec![one; 8 * 32], vec![two; 8 * 8]].concat();
    let cache = upload(device, &[vec![bf16::NAN; page.len()], page].concat());
    let batch = LaBatch {
        query_starts: upload(device, &[0, 0]),
        seq_lens: upload(device, &[3]),
        page_table: upload(device, &[1]),
        page_starts: upload(device, &[0, 1]),
        max_pages: 0,
        page_count: 2,
    };
    let args = LaUpProjectArgs {
        cache: bytes(cache.address, 2 * cache.elements),
        token_starts: upload(device, &[0, 3]),
        up_key: dense(upload(device, &[one; 2 * 8 * 32]), [2, 8, 32]),
        up_value: dense(upload(device, &[two; 2 * 16 * 32]), [2, 16, 32]),
        value_bias: upload(device, &[0.5f32; 2 * 16]),
        keys: dense(upload(device, &[bf16::NAN; 3 * 2 * 16]), [3, 2, 16]),
        values: dense(upload(device, &[bf16::NAN; 3 * 2 * 16]), [3, 2, 16]),
    };
    // SAFETY: as the header asks.
    unsafe {
        let config = LaUpProjectConfig { geometry, format };
        let up_project = created(|out| la_up_project_create(device, &config, out));
        assert_eq!(la_up_project_run(up_project, stream, &batch, &args), LaStatus::Ok, "{}", message());
        la_up_project_destroy(up_project);
    }
    let key = [[32.0; 8], [2.0; 8]].concat();
    let wide = |values: Vec<bf16>| values.into_iter().map(bf16::to_f32).collect::<Vec<_>>();
    assert_eq!(wide(download(device, args.keys.memory)), key.repeat(3 * 2));
    assert_eq!(wide(download(device, args.values.memory)), [64.5; 3 * 2 * 16]);
}

#[test]
fn null_pointers_are_refused_by_name() {
    let (device, stream) = device();
    let mut name = null();
    let args = LaAbsorbQueryArgs::default();
    // SAFETY: null is allowed everywhere.
    unsafe {
        let absorb = created(|out| la_absorb_query_create(device, &absorb_config(), out));
        for (status, message, what) in [
            (la_device_simulated(null_mut()), message(), "out"),
            (la_device_name(null(), &mut name), message(), "device"),
            (la_device_synchronize(null()), message(), "device"),
            (la_stream_synchronize(null()), message(), "stream"),
            (la_geometry_named(null(), &mut geometry()), message(), "name"),
            (la_cache_layout(null(), &format(), &mut LaCacheLayout::default()), message(), "geometry"),
            (la_cache_layout(&geometry(), null(), &mut LaCacheLayout::default()), message(), "format"),
            (la_absorb_query_create(device, null(), &mut null_mut()), message(), "config"),
            (la_decode_create(device, null(), &mut null_mut()), message(), "config"),
            (la_absorb_query_run(null(), stream, &args), message(), "operation"),
            (la_absorb_query_run(absorb, null(), &args), message(), "stream"),
            (la_absorb_query_run(absorb, stream, null()), message(), "args"),
            (la_upload(device, 256, null(), 1), message(), "from"),
            (la_download(device, 0, [0u8].as_mut_ptr().cast(), 1), message(), "from"),
        ] {
            assert_eq!((status, message), (LaStatus::NullPointer, format!("{what}: is a null pointer")));
        }
        la_absorb_query_destroy(absorb);
        la_absorb_query_destroy(null_mut());
        la_device_destroy(null_mut());
    }
}

#[test]
fn a_failed_call_leaves_out_alone() {
    let mut operation = std::ptr::dangling_mut::<LaCombine>();
    let config = LaCombineConfig { latent_rank: 8, max_splits: 0 };
    // SAFETY: as the header asks.
    let status = unsafe { la_combine_create(device().0, &config, &mut operation) };
    assert_eq!((status, operation), (LaStatus::Config, std::ptr::dangling_mut()));
    assert_eq!(message(), "combine of 0 partials: must be 1..=8192");
}

#[test]
fn sizes_that_do_not_fit_are_refused_with_the_crates_words() {
    let mut layout = LaCacheLayout::default();
    let odd = LaGeometry { rope_dim: 7, ..geometry() };
    let pages = LaCacheFormat { page_size: 20, ..format() };
    let (unknown_row, int8_latents) =
        (LaCacheFormat { rope_row: 7, ..format() }, LaCacheFormat { latent_row: 2, ..format() });
    let rows = "must be LA_ROW_BF16 with 0, LA_ROW_INT4 with 32, 64, 128 or 512, or, of rotated keys only, LA_ROW_INT8 \
                with 512";
    for (geometry, format, status, text) in [
        (odd, format(), LaStatus::Geometry, "geometry: rope_dim must be even, got 7".into()),
        (geometry(), pages, LaStatus::Config, "page size 20: must be one of [8, 16, 32, 64] tokens".into()),
        (
            geometry(),
            unknown_row,
            LaStatus::Config,
            format!("cache format: rope rows of kind 7 in groups of 32: {rows}"),
        ),
        (
            geometry(),
            int8_latents,
            LaStatus::Config,
            format!("cache format: latent rows of kind 2 in groups of 512: {rows}"),
        ),
    ] {
        // SAFETY: as the header asks.
        assert_eq!((unsafe { la_cache_layout(&geometry, &format, &mut layout) }, message()), (status, text));
    }
    let config = LaRopeAppendConfig { geometry: geometry(), format: format(), pairing: 2 };
    // SAFETY: as the header asks.
    let status = unsafe { la_rope_append_create(device().0, &config, &mut null_mut()) };
    let text = "pairing 2: must be LA_PAIRING_HALF or LA_PAIRING_INTERLEAVED";
    assert_eq!((status, message()), (LaStatus::Config, text.into()));
}

#[test]
fn tensors_must_lie_in_their_memory_and_begin_on_an_element() {
    let (device, stream) = device();
    let address = memory(device, 4096);
    let array = |address, elements| LaArray { address, elements, dtype: LA_DTYPE_BF16 };
    let good = LaAbsorbQueryArgs {
        up_key: dense(array(address, 512), [2, 8, 32]),
        q_nope: dense(array(address, 32), [1, 4, 8]),
        q_latent: dense(array(address + 2048, 128), [1, 4, 32]),
    };
    let mut heads = good;
    heads.q_nope.sizes[1] = 3;
    let (mut short, mut odd, mut nowhere, mut shared) = (good, good, good, good);
    short.up_key.memory.elements = 511;
    odd.q_nope.memory.address += 1;
    nowhere.q_latent.memory.address = 0;
    shared.q_latent.strides[1] = 16;
    // SAFETY: as the header asks, up to what is refused.
    unsafe {
        let absorb = created(|out| la_absorb_query_create(device, &absorb_config(), out));
        assert_eq!(la_absorb_query_run(absorb, stream, &good), LaStatus::Ok);
        for (args, status, text) in [
            (heads, LaStatus::Shape, "q_nope: expected [tokens 1, query heads 4, nope 8], got [1, 3, 8]"),
            (short, LaStatus::Shape, "within 511 elements of memory, got 512 elements"),
            (odd, LaStatus::Alignment, "q_nope: expected a multiple of 2 bytes, got address"),
            (nowhere, LaStatus::NullPointer, "q_latent: is a null pointer"),
            (shared, LaStatus::Shape, "tensor to write: expected rows that share no elements"),
        ] {
            assert_eq!(la_absorb_query_run(absorb, stream, &args), status);
            assert!(message().contains(text), "{}", message());
        }
    }
}

#[test]
fn arrays_of_another_type_or_of_none_are_refused() {
    let (device, stream) = device();
    let good = LaCombineArgs {
        rows: 1,
        splits: 2,
        o_partial: upload(device, &[1.0f32; 16]),
        lse_partial: upload(device, &[0.5f32; 2]),
        o_latent: upload(device, &[bf16::ZERO; 8]),
        lse: upload(device, &[0.0f32]),
    };
    let (mut wide, mut words, mut untold, mut endless) = (good, good, good, good);
    wide.lse_partial.dtype = LA_DTYPE_I64;
    words.o_latent.dtype = LA_DTYPE_U32;
    untold.lse.dtype = 0;
    endless.o_partial.elements = usize::MAX;
    let bytes = LaArray { address: memory(device, 16), elements: 16, dtype: LA_DTYPE_U8 };
    let batch = LaBatch {
        query_starts: upload(device, &[0, 1]),
        seq_lens: upload(device, &[1]),
        page_table: upload(device, &[0]),
        max_pages: 1,
        page_count: 1,
        ..Default::default()
    };
    let wide_batch = LaBatch { page_table: upload(device, &[0i64]), ..batch };
    let config = LaDecodeConfig {
        geometry: geometry(),
        format: format(),
        scale: 0.25,
        max_query_tokens: 1,
        max_tokens: 64,
        ..Default::default()
    };
    // SAFETY: as the header asks, up to what is refused.
    unsafe {
        let combine = created(|out| la_combine_create(device, &LaCombineConfig { latent_rank: 8, max_splits: 2 }, out));
        assert_eq!(la_combine_run(combine, stream, &good), LaStatus::Ok, "{}", message());
        for (args, text) in [
            (wide, "lse_partial: expected elements of f32, got i64"),
            (words, "o_latent: expected elements of bf16, got u32"),
            (untold, "lse: expected elements of f32, got dtype 0, which is no LA_DTYPE"),
            (endless, "o_partial: expected memory that ends within 64 bits of address, got 18446744073709551615"),
        ] {
            assert_eq!(la_combine_run(combine, stream, &args), LaStatus::Shape);
            assert!(message().starts_with(text), "{}", message());
        }
        let decode = created(|out| la_decode_create(device, &config, out));
        for (batch, workspace, text) in [
            (wide_batch, bytes, "page table: expected elements of i32, got i64"),
            (batch, LaArray { dtype: LA_DTYPE_BF16, ..bytes }, "workspace: expected elements of u8, got bf16"),
        ] {
            let status = la_decode_plan(decode, stream, &batch, 1, workspace, &mut null_mut());
            assert_eq!(status, LaStatus::Shape);
            assert!(message().starts_with(text), "{}", message());
        }
    }
}

#[test]
fn memory_that_there_is_not_is_refused() {
    let (device, _) = device();
    let (mut byte, small) = (0u8, memory(device, 16));
    // SAFETY: as the header asks, up to what is refused.
    unsafe {
        assert_eq!(la_buffer_create(device, 1 << 46, &mut null_mut()), LaStatus::Driver);
        assert!(message().contains("cannot allocate 70368744177664 bytes"), "{}", message());
        assert_eq!(la_buffer_create(device, usize::MAX, &mut null_mut()), LaStatus::Driver);
        // A copy of more than this computer has, and one of more than any computer has.
        for bytes in [1 << 46, usize::MAX - 4096] {
            let copy = (&raw mut byte).cast();
            assert_ne!(la_download(device, small, copy, bytes), LaStatus::Ok);
        }
        assert_eq!(la_upload(device, small, (&raw const byte).cast(), 1 << 63), LaStatus::Shape);
        assert!(message().starts_with("from: expected memory that a process can have, got"), "{}", message());
    }
}

#[test]
fn a_scale_that_is_no_number_is_refused() {
    let (device, _) = device();
    for scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let config = LaDecodeConfig {
            geometry: geometry(),
            format: format(),
            scale,
            max_query_tokens: 1,
            max_tokens: 64,
            ..Default::default()
        };
        // SAFETY: as the header asks.
        assert_eq!(unsafe { la_decode_create(device, &config, &mut null_mut()) }, LaStatus::Config);
        assert_eq!(message(), format!("scale {scale}: must be finite"));
    }
}

#[test]
fn a_plan_needs_its_workspace_and_a_batch_its_cache() {
    let (device, stream) = device();
    let config = LaDecodeConfig {
        geometry: geometry(),
        format: format(),
        scale: 0.25,
        max_query_tokens: 1,
        max_tokens: 64,
        ..Default::default()
    };
    let array = |bytes, elements, dtype| LaArray { address: memory(device, bytes), elements, dtype };
    let batch = LaBatch {
        query_starts: array(8, 2, LA_DTYPE_I32),
        seq_lens: array(4, 1, LA_DTYPE_I32),
        page_table: array(8, 2, LA_DTYPE_I32),
        max_pages: 2,
        page_count: 2,
        ..Default::default()
    };
    let csr = LaBatch { page_starts: array(4, 1, LA_DTYPE_I32), ..batch };
    // SAFETY: as the header asks, up to what is refused.
    unsafe {
        let decode = created(|out| la_decode_create(device, &config, out));
        let mut bytes = 0;
        assert_eq!(la_decode_workspace_bytes(decode, &mut bytes), LaStatus::Ok);
        let workspace = array(bytes, bytes, LA_DTYPE_U8);
        let plan = |batch, tokens, workspace| {
            let mut plan = null_mut();
            let status = la_decode_plan(decode, stream, batch, tokens, workspace, &mut plan);
            (status, plan)
        };
        let small = LaArray { elements: bytes - 1, ..workspace };
        assert_eq!(plan(&batch, 1, small).0, LaStatus::WorkspaceTooSmall);
        assert_eq!(message(), format!("workspace: expected at least {bytes} bytes, got {}", bytes - 1));
        assert_eq!(plan(&batch, 2, workspace).0, LaStatus::Config);
        assert_eq!(message(), "2 query tokens: this operation was made for at most 1");
        assert_eq!(plan(&csr, 1, workspace).0, LaStatus::Shape);
        assert!(message().starts_with("page table indptr: expected [sequences + 1 2]"), "{}", message());
        let (status, plan) = plan(&batch, 1, workspace);
        assert_eq!(status, LaStatus::Ok, "{}", message());

        let mut layout = LaCacheLayout::default();
        assert_eq!(la_cache_layout(&geometry(), &format(), &mut layout), LaStatus::Ok);
        let tensor = |inner: usize| LaTensor {
            memory: array(8 * inner, 4 * inner, LA_DTYPE_BF16),
            sizes: [1, 4, inner],
            strides: [4 * inner, inner],
        };
        let mut args = LaDecodeArgs {
            q_latent: tensor(32),
            q_rope: tensor(8),
            cache: array(layout.page_bytes, layout.page_bytes, LA_DTYPE_U8),
            o_latent: array(256, 128, LA_DTYPE_BF16),
            lse: array(16, 4, LA_DTYPE_F32),
        };
        assert_eq!(la_decode_run(decode, stream, plan, &args), LaStatus::Config);
        assert_eq!(message(), "cache: has 1 pages, the batch is for caches of 2 or more");
        args.cache.elements -= 1;
        assert_eq!(la_decode_run(decode, stream, plan, &args), LaStatus::Shape);
        assert!(message().starts_with("cache bytes: expected a multiple of"), "{}", message());
        assert_eq!(la_decode_run(decode, stream, null_mut(), &args), LaStatus::NullPointer);
        la_plan_destroy(plan);
        la_decode_destroy(decode);
    }
}

#[test]
fn what_the_simulator_finds_is_an_error_of_the_kernel() {
    let (device, stream) = device();
    let (o_partial, bytes) = (memory(device, 64), 64);
    // SAFETY: the sizes are wrong on purpose; the simulator looks at every access.
    unsafe {
        let config = LaCombineConfig { latent_rank: 8, max_splits: 4 };
        let combine = created(|out| la_combine_create(device, &config, out));
        let array = |elements, dtype| LaArray { address: o_partial, elements, dtype };
        let args = LaCombineArgs {
            rows: bytes,
            splits: 2,
            o_partial: array(2 * 8 * bytes, LA_DTYPE_F32),
            lse_partial: array(2 * bytes, LA_DTYPE_F32),
            o_latent: array(8 * bytes, LA_DTYPE_BF16),
            lse: array(bytes, LA_DTYPE_F32),
        };
        assert_eq!(la_combine_run(combine, stream, &args), LaStatus::Kernel);
        assert!(message().starts_with("kernel `combine`: "), "{}", message());
    }
}

#[test]
fn named_geometries_are_the_crates() {
    let mut sizes = LaGeometry::default();
    for (name, build) in latent_attention::Geometry::NAMED {
        let name = CString::new(*name).unwrap();
        // SAFETY: as the header asks.
        assert_eq!(unsafe { la_geometry_named(name.as_ptr(), &mut sizes) }, LaStatus::Ok);
        assert_eq!(sizes, build().unwrap().into());
    }
    // SAFETY: as the header asks.
    assert_eq!(unsafe { la_geometry_named(c"gpt-2".as_ptr(), &mut sizes) }, LaStatus::Config);
    assert!(message().starts_with("model name `gpt-2`: known names are llama2-7b-d64,"), "{}", message());
    // A message is one line, whatever of the caller's is quoted in it.
    // SAFETY: as the header asks.
    assert_eq!(unsafe { la_geometry_named(c"gpt\r\n-2".as_ptr(), &mut sizes) }, LaStatus::Config);
    assert!(message().starts_with("model name `gpt\\r\\n-2`: known names are"), "{}", message());
    assert_eq!(message().lines().count(), 1);
}

#[test]
fn a_machine_without_the_gpu_says_so() {
    // SAFETY: as the header asks.
    let status = unsafe { la_device_cuda(1 << 20, &mut null_mut()) };
    let expected = [LaStatus::NoDriver, LaStatus::DriverTooOld, LaStatus::NoDevice];
    assert!(expected.contains(&status), "{status:?}: {}", message());
}
