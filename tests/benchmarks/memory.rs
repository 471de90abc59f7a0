//! What rows are measured on.

use latent_attention::device::Device;

use crate::program::harness::cache::repeat;
use crate::program::harness::clock::Clock;
use crate::program::harness::memory::{Copies, Inputs, Numbers};

#[test]
fn the_device_repeats_what_the_host_wrote() {
    let device = Device::simulated();
    let stream = device.stream().unwrap();
    let pattern: Vec<u8> = (0..48).collect();
    for needed in [48, 64, 96, 240, 256] {
        let mut bytes = device.upload(&[0xFF; 256]).unwrap();
        bytes.view_mut().slice(..48).unwrap().write(&pattern).unwrap();
        repeat(&stream, &mut bytes, 48, needed).unwrap();
        let expected: Vec<u8> = (0..256).map(|i| if i < needed { (i % 48) as u8 } else { 0xFF }).collect();
        assert_eq!(bytes.to_vec().unwrap(), expected, "{needed}");
    }
    let mut bytes = device.upload(&[0; 64]).unwrap();
    let refused = |bytes: &mut _, filled, needed| repeat(&stream, bytes, filled, needed).unwrap_err().to_string();
    assert_eq!(refused(&mut bytes, 16, 80), "80 bytes of 64");
    assert_eq!(refused(&mut bytes, 8, 64), "8 bytes to 64");
    assert_eq!(refused(&mut bytes, 0, 64), "0 bytes to 64");
}

#[test]
fn copies_fill_256_mib_or_are_1024() {
    assert_eq!(
        [0, 1, 256 << 10, 1 << 20, 100 << 20, 256 << 20, 1 << 40].map(Clock::copies),
        [1024, 1024, 1024, 256, 3, 1, 1]
    );
}

#[test]
fn copies_share_no_element() {
    let device = Device::simulated();
    let mut inputs = Inputs::default();
    let spans = [inputs.tensor([2, 3, 5]), inputs.tensor([1, 1, 129])];
    let mut numbers = Numbers::new(&device).unwrap();
    numbers.arrange(&inputs, 3).unwrap();
    let outputs = Copies::<u8>::new(&device, 30, 3).unwrap();
    let mut ranges = [Vec::new(), Vec::new()];
    for copy in 0..3 {
        for span in &spans {
            let tensor = numbers.tensor(copy, span).unwrap();
            let view = tensor.view();
            ranges[0].push(view.address()..view.address() + 2 * view.len() as u64);
            assert!(view.address().is_multiple_of(16), "copies of 16 bytes need aligned addresses");
        }
        let view = outputs.view(copy).unwrap();
        ranges[1].push(view.address()..view.address() + view.len() as u64);
    }
    for ranges in ranges {
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{ranges:?}");
    }
}
