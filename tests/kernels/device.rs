//! The device itself: memory, tensors and what it refuses.

use half::bf16;
use latent_attention::Error;
use latent_attention::device::{
    Buffer, Device, Event, Graph, LaunchConfig, Shape, Simulation, Stream, Tensor, TensorMut, View,
};
use latent_attention::image::{Arch, ptx};
use latent_attention::ops::{Combine, CombineArgs, CombineConfig};
use latent_attention::sys::{CombineParams, DECODE_CLUSTER_SM90_KERNELS, DECODE_SM80_KERNELS, DECODE_SM90_KERNELS};

use crate::{device, is_simulated};

#[test]
fn what_is_written_is_read_back() {
    let device = device();
    let mut buffer = device.upload(&[1i64, -2, 3]).unwrap();
    assert_eq!(buffer.to_vec().unwrap(), [1, -2, 3]);
    assert_eq!(buffer.view().slice(1..).unwrap().to_vec().unwrap(), [-2, 3]);
    buffer.view_mut().slice(..2).unwrap().write(&[7, 8]).unwrap();
    assert_eq!(buffer.to_vec().unwrap(), [7, 8, 3]);
    assert_eq!(device.zeros::<bf16>(2).unwrap().to_vec().unwrap(), [bf16::ZERO; 2]);
    assert!(device.upload::<u8>(&[]).unwrap().to_vec().unwrap().is_empty());
}

#[test]
fn borrowed_memory_stays_its_owners() {
    let device = device();
    let owner = device.upload(&[1.0f32, 2.0]).unwrap();
    // SAFETY: the owner lives on, and nobody writes.
    let view = unsafe { View::<f32>::borrow(&device, owner.view().address(), 2, &owner) };
    assert_eq!(view.to_vec().unwrap(), [1.0, 2.0]);
    drop(view);
    assert_eq!(owner.to_vec().unwrap(), [1.0, 2.0]);
}

#[test]
fn a_view_is_split_into_two_that_are_written_at_once() {
    let device = device();
    let mut buffer = device.upload(&[1u8; 16]).unwrap();
    let (mut first, rest) = buffer.view_mut().split_at(4).unwrap();
    let mut rest = rest.cast::<i32>().unwrap();
    first.write(&[2, 3, 4, 5]).unwrap();
    rest.write(&[6, 7, -1]).unwrap();
    assert_eq!(buffer.to_vec().unwrap(), [2, 3, 4, 5, 6, 0, 0, 0, 7, 0, 0, 0, 255, 255, 255, 255]);
    for (mid, lens) in [(0, [0, 16]), (16, [16, 0])] {
        let (first, rest) = buffer.view_mut().split_at(mid).unwrap();
        assert_eq!([first.view().len(), rest.view().len()], lens);
    }
    let message = buffer.view_mut().split_at(17).unwrap_err().to_string();
    assert_eq!(message, "range 0..17: its end = 17 is outside of 0..=16 elements");
}

#[test]
fn a_view_is_cast_to_whole_aligned_elements_only() {
    let device = device();
    let buffer = device.upload(&[0u8, 0, 128, 63, 0, 0, 0, 64, 9]).unwrap();
    let bytes = |range: std::ops::Range<usize>| buffer.view().slice(range).unwrap();
    assert_eq!(bytes(0..8).cast::<f32>().unwrap().to_vec().unwrap(), [1.0, 2.0]);
    assert_eq!(bytes(2..4).cast::<bf16>().unwrap().to_vec().unwrap(), [bf16::from_f32(1.0)]);
    assert!(bytes(0..0).cast::<u64>().unwrap().is_empty());
    let message = bytes(0..9).cast::<f32>().unwrap_err().to_string();
    assert_eq!(message, "view: expected a multiple of 4 bytes, for elements of f32, got 9 bytes");
    let message = bytes(1..9).cast::<i64>().unwrap_err().to_string();
    assert!(
        message.starts_with("view: expected a multiple of 8 bytes, for elements of i64, got address 0x"),
        "{message}"
    );
}

#[test]
fn ranges_and_lengths_that_do_not_fit_are_refused() {
    let device = device();
    let mut buffer = device.zeros::<u8>(4).unwrap();
    for message in
        [buffer.view().slice(3..5).unwrap_err().to_string(), buffer.view().slice(..=4).unwrap_err().to_string()]
    {
        assert!(
            message.ends_with("its end = 5 is outside of 3..=4 elements") || message.contains("0..=4"),
            "{message}"
        );
    }
    let message = buffer.write(&[0; 3]).unwrap_err().to_string();
    assert_eq!(message, "buffer: expected [elements 4] = 4 elements, got 3 elements");
    assert!(matches!(device.allocate::<u64>(usize::MAX), Err(Error::OutOfMemory { .. })));
    assert!(matches!(device.zeros::<u64>(usize::MAX), Err(Error::OutOfMemory { .. })));
}

#[test]
fn callers_can_tell_why_something_is_refused() {
    let (device, elsewhere) = (device(), Device::simulated());
    // Another device's memory, more than the operation was made for, and more than any kernel does.
    let combine = Combine::new(&device, CombineConfig::new(8, 2)).unwrap();
    let run = |on: &Device, splits: usize| {
        let [o_partial, lse_partial] = [8, 1].map(|width| on.zeros::<f32>(splits * width).unwrap());
        let (mut o_latent, mut lse) = (device.zeros::<bf16>(8).unwrap(), device.zeros::<f32>(1).unwrap());
        let args = CombineArgs {
            rows: 1,
            splits,
            o_partial: o_partial.view(),
            lse_partial: lse_partial.view(),
            o_latent: o_latent.view_mut(),
            lse: lse.view_mut(),
        };
        combine.run(&device.stream().unwrap(), args)
    };
    run(&device, 2).unwrap();
    assert!(matches!(run(&elsewhere, 2), Err(Error::OtherDevice { .. })));
    assert!(matches!(run(&device, 3), Err(Error::Capacity { .. })));
    assert!(matches!(Combine::new(&device, CombineConfig::new(8, 8193)), Err(Error::Unsupported { .. })));
    // What only a GPU does.
    assert!(matches!(Event::new(&elsewhere), Err(Error::Unsupported { .. })));
}

#[test]
fn more_memory_than_there_is_is_refused() {
    let device = device();
    let refused = |error: Error| match error {
        Error::Driver { .. } => !device.is_cpu(),
        Error::OutOfMemory { .. } => device.is_cpu(),
        _ => false,
    };
    assert!(refused(device.allocate::<u8>(1 << 46).unwrap_err()));
    assert!(refused(device.allocate::<u8>(usize::MAX).unwrap_err()));
    assert!(refused(device.zeros::<i64>(1 << 43).unwrap_err()));
    // What was refused has taken nothing.
    assert_eq!(device.zeros::<i64>(3).unwrap().to_vec().unwrap(), [0; 3]);
}

#[test]
fn a_copy_of_more_than_the_host_can_hold_is_an_error() {
    if !is_simulated(&device()) {
        return; // Others need not survive the address.
    }
    let device = device();
    let owner = device.zeros::<u8>(4).unwrap();
    for len in [1 << 46, usize::MAX - 8] {
        // SAFETY: the simulator looks at every address.
        let view = unsafe { View::<u8>::borrow(&device, owner.view().address(), len, &owner) };
        view.to_vec().unwrap_err();
    }
}

#[test]
fn simulated_memory_is_as_large_as_asked_for() {
    let device = Device::simulate(Simulation::default().with_memory_bytes(100));
    let half = device.zeros::<u8>(50).unwrap();
    let message = device.allocate::<u8>(51).unwrap_err().to_string();
    assert_eq!(message, "device memory: cannot allocate 51 bytes: 50 of 100 bytes are in use");
    drop(half);
    device.allocate::<u8>(100).unwrap();
}

#[test]
fn tensors_lie_within_their_memory() {
    let device = device();
    let buffer = device.zeros::<f32>(24).unwrap();
    let tensor = |sizes, strides| Tensor::new(buffer.view(), Shape { sizes, strides }).is_ok();
    assert!(tensor([2, 3, 4], [12, 4]));
    assert!(tensor([2, 3, 2], [12, 4])); // A slice of each head.
    assert!(tensor([1, 1, 24], [usize::MAX, usize::MAX])); // Strides of single rows are not used.
    assert!(tensor([9, 0, 4], [usize::MAX, 1]));
    assert!(!tensor([2, 3, 4], [13, 4]));
    assert!(!tensor([3, 1, 1], [usize::MAX, 1]));
    assert!(tensor([5, 3, 4], [0, 4])); // The same rows again.
}

#[test]
fn rows_of_a_tensor_to_write_share_nothing() {
    let device = device();
    let mut buffer = device.zeros::<f32>(24).unwrap();
    let mut tensor = |sizes, strides| TensorMut::new(buffer.view_mut(), Shape { sizes, strides }).is_ok();
    assert!(tensor([2, 3, 4], [12, 4]));
    assert!(tensor([3, 2, 4], [4, 12])); // Heads before tokens.
    assert!(tensor([2, 3, 2], [12, 4]));
    assert!(!tensor([5, 3, 4], [0, 4]));
    assert!(!tensor([2, 3, 4], [11, 4]));
    assert!(!tensor([2, 3, 4], [12, 3]));
    assert!(tensor([1, 3, 4], [0, 4]));
}

#[test]
fn kernels_that_do_not_exist_are_named() {
    let device = device();
    if device.is_cpu() {
        return; // It has no files, and no shared memory.
    }
    let message = device.kernel("no_such_file", "k", 0).unwrap_err().to_string();
    assert!(message.starts_with("no image of csrc/no_such_file.cu for"), "{message}");
    assert!(device.kernel("combine", "no_such_kernel", 0).is_err());
    let message = device.kernel("combine", "combine", 1 << 30).unwrap_err().to_string();
    assert!(message.starts_with("kernel `combine`: needs 1073741824 bytes of shared memory"), "{message}");
}

#[test]
fn a_stream_of_another_device_is_refused() {
    let combine = Combine::new(&device(), CombineConfig::new(8, 2)).unwrap();
    let stream: Stream = Device::simulated().stream().unwrap();
    let params = CombineParams { rows: 1, splits: 1, latent_rank: 8, ..Default::default() };
    // SAFETY: refused before anything is launched.
    let message = unsafe { combine.launch(&stream, 1, &params) }.unwrap_err().to_string();
    assert!(message.starts_with("stream: is on device `ptx-sim`"), "{message}");
}

#[test]
fn more_shared_memory_than_a_kernel_was_loaded_for_is_refused() {
    let device = device();
    let kernel = device.kernel("combine", "combine", 16).unwrap();
    let config = LaunchConfig::new([1, 1, 1], [32, 1, 1]).with_shared(17);
    // SAFETY: refused before anything is launched.
    let refused = unsafe { kernel.launch(&device.stream().unwrap(), &config, &CombineParams::default()) };
    let message = refused.unwrap_err().to_string();
    assert_eq!(message, "kernel `combine`: loaded for 16 bytes of shared memory, not 17");
}

/// What is launched before the kernel in front has ended: files of `csrc` and their kernels.
const PROGRAMMATIC: [(&str, &str); 16] = [
    ("absorb", "absorb_query_few"),
    ("absorb", "absorb_query_few_ordered"),
    ("absorb", "absorb_query_medium"),
    ("absorb", "absorb_query_many"),
    ("absorb", "expand_output_few"),
    ("absorb", "expand_output_few_ordered"),
    ("absorb", "expand_output_medium"),
    ("absorb", "expand_output_many"),
    ("combine", "combine"),
    ("prepare", "prepare"),
    ("prepare", "prepare_mse"),
    ("prepare", "prepare_ordered"),
    ("prepare", "prepare_ordered_mse"),
    ("rope_append", "rope_append"),
    ("rope_append", "rope_append_mse"),
    ("schedule", "schedule"),
];

/// The same, with those of `decode`.
fn programmatic() -> impl Iterator<Item = (&'static str, &'static str)> {
    let sm80 = DECODE_SM80_KERNELS.into_iter().map(|kernel| ("decode_sm80", kernel.0));
    let sm90 = DECODE_SM90_KERNELS.into_iter().map(|kernel| ("decode_sm90", kernel.0));
    let clusters = DECODE_CLUSTER_SM90_KERNELS.into_iter().map(|kernel| ("decode_cluster_sm90", kernel.0));
    PROGRAMMATIC.into_iter().chain(sm80).chain(sm90).chain(clusters)
}

#[test]
fn programmatic_kernels_wait_before_they_touch_memory_where_they_can() {
    for (file, kernel) in programmatic() {
        for arch in [Arch::Compute80, Arch::Compute90a] {
            // Hopper's own kernels are compiled for no other.
            let Some(module) = ptx(file, arch) else { continue };
            let code = module.split_once(&format!(".visible .entry {kernel}(")).unwrap().1;
            let code = code.split_once(".visible .entry ").map_or(code, |(own, _)| own);
            let waits = code.find("griddepcontrol.wait;");
            assert_eq!(waits.is_some(), arch.capability() >= (9, 0), "{kernel}, {}", arch.name());
            let Some(waits) = waits else { continue };
            for first in ["ld.global", "st.global", "cp.async", "atom", "red.", "ret;"].map(|word| code.find(word)) {
                assert!(
                    first.is_none_or(|first| waits < first),
                    "{kernel}: {:?}",
                    first.map(|first| &code[first..][..40])
                );
            }
        }
    }
}

#[test]
fn the_simulator_turns_a_wrong_access_into_an_error() {
    if !is_simulated(&device()) {
        return; // A GPU would lose its context, the process its life.
    }
    let device = device();
    let combine = Combine::new(&device, CombineConfig::new(8, 2)).unwrap();
    let params = CombineParams { rows: 1, splits: 1, latent_rank: 8, ..Default::default() };
    // SAFETY: the simulator survives null pointers.
    let message = unsafe { combine.launch(&device.stream().unwrap(), 1, &params) }.unwrap_err().to_string();
    assert!(
        message.starts_with("kernel `combine`: ") && message.contains("at global address 0x0: not in any allocation"),
        "{message}"
    );
}

#[test]
fn without_a_driver_the_error_says_so() {
    match Device::cuda(0) {
        Err(Error::NoDriver { why }) => assert!(!why.is_empty()),
        Ok(device) => assert!(device.is_cuda() && device.compute_capability().is_some()),
        Err(Error::NoDevice { .. } | Error::DriverTooOld { .. } | Error::UnsupportedArch { .. }) => {}
        Err(other) => panic!("{other}"),
    }
    assert!(Device::cuda(1 << 20).is_err());
}

#[test]
fn graphs_and_timing_need_a_gpu() {
    let simulated = Device::simulated();
    let stream = simulated.stream().unwrap();
    let message = stream.capture(|| Ok(())).unwrap_err().to_string();
    assert_eq!(message, "graph capture: needs a GPU");
    assert!(latent_attention::device::Event::new(&simulated).is_err());
}

/// `combine` of one part of four numbers: the smallest operation to capture.
struct Merge {
    combine: Combine,
    o_partial: Buffer<f32>,
    lse_partial: Buffer<f32>,
    o_latent: Buffer<bf16>,
    lse: Buffer<f32>,
}

impl Merge {
    fn new(device: &Device) -> Self {
        Self {
            combine: Combine::new(device, CombineConfig::new(4, 1)).unwrap(),
            o_partial: device.zeros(4).unwrap(),
            lse_partial: device.zeros(1).unwrap(),
            o_latent: device.zeros(4).unwrap(),
            lse: device.zeros(1).unwrap(),
        }
    }

    fn capture(&mut self, stream: &Stream) -> Graph {
        let args = CombineArgs {
            rows: 1,
            splits: 1,
            o_partial: self.o_partial.view(),
            lse_partial: self.lse_partial.view(),
            o_latent: self.o_latent.view_mut(),
            lse: self.lse.view_mut(),
        };
        stream.capture(|| self.combine.run(stream, args)).unwrap()
    }
}

#[test]
fn a_replayed_graph_reads_what_is_there_then() {
    let device = device();
    if !device.is_cuda() {
        return; // The simulator has no graphs.
    }
    let (stream, mut merge) = (device.stream().unwrap(), Merge::new(&device));
    let graph = merge.capture(&stream);
    for numbers in [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]] {
        merge.o_partial.write(&numbers).unwrap();
        // SAFETY: all buffers are still there, and nothing else runs.
        unsafe { graph.launch(&stream) }.unwrap();
        stream.synchronize().unwrap();
        assert_eq!(merge.o_latent.to_vec().unwrap(), numbers.map(bf16::from_f32));
    }
}

/// Found on an H200: waiting for the whole context fails while any stream is captured, and spoils the capture.
#[test]
fn other_threads_copy_while_one_captures() {
    let device = device();
    if !device.is_cuda() {
        return; // The simulator has no graphs.
    }
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let device = &device;
            scope.spawn(move || {
                for round in 0..50 {
                    if thread % 2 == 0 {
                        let numbers = device.upload(&[round; 1000]).unwrap();
                        assert_eq!(numbers.to_vec().unwrap(), [round; 1000]);
                    } else {
                        Merge::new(device).capture(&device.stream().unwrap());
                    }
                }
            });
        }
    });
}

#[test]
fn what_cannot_be_captured_is_refused_and_ends_the_capture() {
    let device = device();
    if !device.is_cuda() {
        return; // The simulator has no graphs.
    }
    let stream = device.stream().unwrap();
    let mut numbers = device.upload(&[1, 2, 3]).unwrap();
    assert!(matches!(stream.capture(|| numbers.write(&[4, 5, 6])), Err(Error::Driver { .. })));
    let message = stream.capture(|| stream.capture(|| Ok(())).map(|_| ())).unwrap_err().to_string();
    assert_eq!(message, "graph capture: this thread is in one already");
    assert_eq!(numbers.to_vec().unwrap(), [1, 2, 3]);
    stream.capture(|| Ok(())).unwrap();
}
