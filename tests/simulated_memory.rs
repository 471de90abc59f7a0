//! What memory of the simulator costs. One test only, so that nothing else in the process changes how much memory it
//! has.
#![cfg(target_os = "linux")]

use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, PagedCache};
use latent_attention::device::Device;
use latent_attention::ops::DeviceCache;

const GIB: usize = 1 << 30;

/// Bytes of memory that this process has in RAM.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn buffers_and_caches_cost_what_is_written_of_them() {
    let device = Device::simulated();
    let before = resident();
    let (mut unwritten, mut zeros) = (device.allocate::<u8>(GIB).unwrap(), device.zeros::<f32>(GIB / 4).unwrap());
    unwritten.view_mut().slice(GIB - 3..).unwrap().write(&[1, 2, 3]).unwrap();
    zeros.view_mut().slice(7..9).unwrap().write(&[1.0, 2.0]).unwrap();
    assert_eq!(unwritten.view().slice(GIB - 4..).unwrap().to_vec().unwrap(), [0, 1, 2, 3]);
    assert_eq!(zeros.view().slice(6..10).unwrap().to_vec().unwrap(), [0.0, 1.0, 2.0, 0.0]);
    assert_eq!(zeros.view().slice(GIB / 4 - 1..).unwrap().to_vec().unwrap(), [0.0]);
    let layout = CacheLayout::new(&Geometry::smollm_135m(8).unwrap(), CacheFormat::INT4, 64).unwrap();
    let pages = GIB / layout.page_bytes();
    let caches = (DeviceCache::new(&device, layout, pages).unwrap(), PagedCache::new(layout, pages).unwrap());
    assert_eq!((caches.0.pages(), caches.1.pages()), (pages, pages));
    let more = resident().saturating_sub(before);
    assert!(more < 64 << 20, "{more} bytes more are resident");
}
