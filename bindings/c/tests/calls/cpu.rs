//! The CPU as a device, as a C program uses it.

use std::ffi::CStr;
use std::ptr::null;

use half::bf16;
use latent_attention_c::*;

use super::{created, merge};

/// The program's own memory, without a copy.
#[test]
fn arrays_are_read_and_written_in_place() {
    let (o_partial, lse_partial) = ([1.0f32, 2.0, 3.0, 4.0], [0.5f32, 0.5]);
    let (mut o_latent, mut lse) = ([bf16::NAN; 2], [f32::NAN]);
    let array = |address: usize, elements: usize, dtype: u32| LaArray { address: address as u64, elements, dtype };
    let args = LaCombineArgs {
        rows: 1,
        splits: 2,
        o_partial: array(o_partial.as_ptr().expose_provenance(), 4, LA_DTYPE_F32),
        lse_partial: array(lse_partial.as_ptr().expose_provenance(), 2, LA_DTYPE_F32),
        o_latent: array(o_latent.as_mut_ptr().expose_provenance(), 2, LA_DTYPE_BF16),
        lse: array(lse.as_mut_ptr().expose_provenance(), 1, LA_DTYPE_F32),
    };
    let mut name = null();
    // SAFETY: as the header asks.
    unsafe {
        let device = created(|out| la_device_cpu(out));
        assert_eq!(la_device_name(device, &mut name), LaStatus::Ok);
        assert!(CStr::from_ptr(name).to_str().unwrap().starts_with("cpu ("));
        let stream = created(|out| la_stream_create(device, out));
        merge(device, stream, &args);
        la_stream_destroy(stream);
        la_device_destroy(device);
    }
    assert_eq!(o_latent, [2.0, 3.0].map(bf16::from_f32));
    assert!((lse[0] - (0.5 + std::f32::consts::LN_2)).abs() < 1e-6, "{lse:?}");
}
