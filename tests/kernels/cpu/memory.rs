//! The device's memory is the process's own.

use half::bf16;
use latent_attention::Error;
use latent_attention::device::{CpuConfig, CpuLevel, Device, Event, View, ViewMut};
use latent_attention::ops::{Combine, CombineArgs, CombineConfig};

fn device() -> Device {
    Device::cpu_with(CpuConfig::default().with_level(CpuLevel::Portable)).unwrap()
}

#[test]
fn what_is_written_is_read_back() {
    let device = device();
    for len in [0usize, 1, 3, 255, 256, 100_000] {
        let values: Vec<i64> = (0..len as i64).collect();
        let mut buffer = device.zeros::<i64>(len).unwrap();
        assert!(buffer.to_vec().unwrap().iter().all(|&value| value == 0));
        assert!(buffer.view().address().is_multiple_of(256));
        buffer.write(&values).unwrap();
        assert_eq!(buffer.to_vec().unwrap(), values);
    }
}

#[test]
fn slices_are_used_in_place() {
    let device = device();
    let (o_partial, lse_partial) = ([1.0f32, 2.0, 3.0, 4.0], [0.0f32, 0.0]);
    let (mut o_latent, mut lse) = ([bf16::NAN; 2], [f32::NAN]);
    let view = View::of_slice(&device, &o_partial).unwrap();
    assert_eq!(view.address(), o_partial.as_ptr().addr() as u64);
    let args = CombineArgs {
        rows: 1,
        splits: 2,
        o_partial: view,
        lse_partial: View::of_slice(&device, &lse_partial).unwrap(),
        o_latent: ViewMut::of_slice(&device, &mut o_latent).unwrap(),
        lse: ViewMut::of_slice(&device, &mut lse).unwrap(),
    };
    Combine::new(&device, CombineConfig::new(2, 2)).unwrap().run(&device.stream().unwrap(), args).unwrap();
    assert_eq!(o_latent, [2.0, 3.0].map(bf16::from_f32));
    assert_eq!(lse, [2.0f32.ln()]);
}

#[test]
fn more_memory_than_there_is_is_an_error() {
    let device = device();
    for bytes in [1 << 60, usize::MAX - 100, usize::MAX] {
        let message = device.allocate::<u8>(bytes).unwrap_err();
        assert!(matches!(message, Error::OutOfMemory { .. }), "{message}");
        assert_eq!(message.to_string(), format!("{bytes} bytes: more than this computer's memory holds"));
    }
    assert!(matches!(device.zeros::<i64>(1 << 57), Err(Error::OutOfMemory { .. })));
    assert!(matches!(device.zeros::<i64>(usize::MAX), Err(Error::OutOfMemory { .. })));
    assert_eq!(device.zeros::<i64>(3).unwrap().to_vec().unwrap(), [0; 3]);
}

#[test]
fn what_only_a_gpu_does_is_refused() {
    let device = device();
    let stream = device.stream().unwrap();
    stream.synchronize().unwrap();
    assert_eq!(stream.capture(|| Ok(())).unwrap_err().to_string(), "graph capture: needs a GPU");
    assert!(matches!(Event::new(&device), Err(Error::Unsupported { .. })));
    let message = device.kernel("ceiling_sm90", "ceiling_wgmma", 0).unwrap_err().to_string();
    assert_eq!(message, "kernel `ceiling_wgmma` of csrc/ceiling_sm90.cu: there is no such operation on the CPU");
}

#[test]
fn devices_say_what_they_are() {
    let device = device();
    assert_eq!(device.name(), "cpu (portable)");
    assert!(device.is_cpu() && !device.is_cuda() && device.compute_capability().is_none());
    let best = Device::best().unwrap();
    assert!(best.is_cuda() || best.name().starts_with("cpu ("), "{}", best.name());
}
