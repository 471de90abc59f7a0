//! What `decode` refuses, and how it says so.

use latent_attention::cache::{CacheFormat, CacheLayout};
use latent_attention::device::{Simulation, Tensor};
use latent_attention::ops::{BatchBuffers, Decode, DecodeArgs, DecodeConfig, DeviceCache, SplitPolicy};

use super::{Step, geometry};
use crate::common::{Batch, rng};
use crate::{device, is_simulated, simulate};

#[test]
fn wrong_arguments_are_named() {
    let device = device();
    let geometry = geometry(4, 2, 64, 8);
    let layout = |geometry| CacheLayout::new(geometry, CacheFormat::INT4, 16).unwrap();
    let config = DecodeConfig::new(geometry, layout(&geometry), 1.0, 3, 100);
    let refused = |config| Decode::new(&device, config).unwrap_err().to_string();
    let large = geometry.with_latent_rank(2561).unwrap();
    assert!(refused(DecodeConfig::new(geometry, layout(&large), 1.0, 3, 100)).starts_with("cache layout: latent rank"));
    let message = Decode::new(&device, DecodeConfig::new(large, layout(&large), 1.0, 3, 100)).map(drop);
    match message.map_err(|error| error.to_string()) {
        Ok(()) => assert!(device.is_cpu()),
        Err(message) => assert!(
            message.starts_with("decode of latents of 2561 numbers") && message.ends_with("at most 2560 are supported")
        ),
    }
    for scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let message = refused(DecodeConfig::new(geometry, layout(&geometry), scale, 3, 100));
        assert_eq!(message, format!("scale {scale}: must be finite"));
    }
    // Without differences between scores, or with those turned round, attention is still a mean.
    for scale in [0.0, -1.0] {
        Decode::new(&device, DecodeConfig::new(geometry, layout(&geometry), scale, 3, 100)).unwrap();
    }
    let message = refused(config.with_policy(SplitPolicy::Fixed { tokens: 0 }));
    assert_eq!(message, "schedule: splits of 0 tokens: must be at least 1");
    let message = refused(DecodeConfig::new(geometry, layout(&geometry), 1.0, 0, 100));
    assert_eq!(message, "schedule: most query tokens 0: must be 1..2^31");
    let message = refused(
        DecodeConfig::new(geometry, layout(&geometry), 1.0, 3, 1 << 20).with_policy(SplitPolicy::Fixed { tokens: 1 }),
    );
    assert_eq!(message, "combine of 1048576 partials: must be 1..=8192");
    let small = simulate(Simulation::default().with_shared_bytes(8 * 1024));
    if is_simulated(&small) {
        let message = Decode::new(&small, config).unwrap_err().to_string();
        assert!(message.contains("bytes of shared memory per block, and the device has 8192"), "{message}");
    }

    let (stream, operation) = (device.stream().unwrap(), Decode::new(&device, config).unwrap());
    let rng = &mut rng(1000);
    let batch = Batch::new(rng, &[20], &[1], 16);
    let step = Step::random(rng, geometry, CacheFormat::INT4, batch);
    let buffers =
        BatchBuffers::upload(&device, &step.batch.sequences(), step.cache.layout(), step.batch.pages).unwrap();
    let batch = buffers.batch();
    let bytes = operation.workspace_bytes();
    let mut workspace = device.allocate::<u8>(bytes + 1).unwrap();
    let message = operation.plan(&stream, &batch, 4, workspace.view_mut()).unwrap_err().to_string();
    assert_eq!(message, "4 query tokens: this operation was made for at most 3");
    let short = workspace.view_mut().slice(..bytes - 1).unwrap();
    let message = operation.plan(&stream, &batch, 1, short).unwrap_err().to_string();
    assert_eq!(message, format!("workspace: expected at least {bytes} bytes, got {}", bytes - 1));
    let odd = workspace.view_mut().slice(1..).unwrap();
    assert!(operation.plan(&stream, &batch, 1, odd).unwrap_err().to_string().starts_with("workspace"));
    let short = workspace.view_mut().slice(..bytes - 1).unwrap();
    // SAFETY: refused, so that no plan comes of it.
    let message = unsafe { operation.planned(&batch, 1, short) }.unwrap_err().to_string();
    assert_eq!(message, format!("workspace: expected at least {bytes} bytes, got {}", bytes - 1));

    let mut plan = operation.plan(&stream, &batch, 1, workspace.view_mut()).unwrap();
    let cache = DeviceCache::upload(&device, &step.cache).unwrap();
    let mut check = |operation: &Decode, [q_latent, q_rope, o_latent, lse]: [usize; 4], expected: &str| {
        let (q_latent, q_rope) = (device.zeros(q_latent).unwrap(), device.zeros(q_rope).unwrap());
        let (mut o_latent, mut lse) = (device.zeros(o_latent).unwrap(), device.zeros(lse).unwrap());
        let args = DecodeArgs {
            q_latent: Tensor::dense(q_latent.view(), [1, 4, q_latent.len() / 4]).unwrap(),
            q_rope: Tensor::dense(q_rope.view(), [1, 4, q_rope.len() / 4]).unwrap(),
            cache: cache.view(),
            o_latent: o_latent.view_mut(),
            lse: lse.view_mut(),
        };
        let message = operation.run(&stream, &mut plan, args).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    check(&operation, [260, 32, 256, 4], "q_latent: expected [query tokens 1, query heads 4, latent 64]");
    check(&operation, [256, 36, 256, 4], "q_rope: expected [query tokens 1, query heads 4, rope 8]");
    check(&operation, [256, 32, 255, 4], "o_latent: expected [query tokens 1, query heads 4, latent 64]");
    check(&operation, [256, 32, 256, 5], "lse: expected [query tokens 1, query heads 4]");
    let other = Decode::new(&device, DecodeConfig::new(geometry, layout(&geometry), 2.0, 3, 100)).unwrap();
    check(&other, [256, 32, 256, 4], "plan: was made by an operation of another configuration");
}
