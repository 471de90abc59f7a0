//! Fences: the forms that there are, and what they count.

mod kernels;

use kernels::Kernel;
use ptx_sim::fault::Fault;
use ptx_sim::meter::Event;

fn kernel(body: &str) -> Kernel<'_> {
    Kernel { body, ..Kernel::default() }
}

#[test]
fn proxy_fences_are_counted_once_per_warp() {
    let body = "fence.proxy.async;
        fence.proxy.async.global;
        fence.proxy.async.shared::cta;
        fence.proxy.async.shared::cluster;
        fence.proxy.async::generic.acquire.sync_restrict::shared::cluster.cluster;
        fence.proxy.async::generic.release.sync_restrict::shared::cta.cluster;
        fence.proxy.alias;
        fence.sc.gpu;
        membar.gl;";
    let ran = Kernel { threads: 64, ..kernel(body) }.clean();
    assert_eq!(ran.report().meter.events[&Event::ProxyFence], 12);
}

#[test]
fn the_fence_for_a_tensor_map_names_128_bytes_of_global_memory() {
    kernel("fence.proxy.tensormap::generic.acquire.gpu [%d0], 128;").clean();
    let body = "cvta.shared.u64 %d2, s;\nfence.proxy.tensormap::generic.acquire.cta [%d2], 128; /* bad */";
    let fault = kernel(body).finds(0, 0, "/* bad */");
    assert!(matches!(&fault, Fault::Trap(why) if why.contains("shared memory")), "{fault}");
    let fault = kernel("fence.proxy.tensormap::generic.acquire.sys [%d0+256], 128; /* bad */").finds(0, 0, "/* bad */");
    assert!(matches!(fault, Fault::OutOfBounds { .. }), "{fault}");
}

/// Thread 0 writes, and thread 33 has a bulk copy read it behind a barrier; a fence of one of them, or of all, lies between.
#[test]
fn a_fence_between_the_proxies_is_of_the_writer_or_of_the_reader() {
    let body = |before: &str, behind: &str| {
        format!(
            "setp.eq.u32 %p0, %r0, 0;
            setp.eq.u32 %p1, %r0, 33;
            setp.eq.u32 %p2, %r0, 5;
            mov.b64 %d2, 7;
            @%p0 st.shared.v2.u64 [s], {{%d2, %d2}};
            {before}
            bar.sync 0;
            {behind}
            @%p1 cp.async.bulk.global.shared::cta.bulk_group [%d0], [s], 16; /* copy */
            @%p1 cp.async.bulk.commit_group;
            @%p1 cp.async.bulk.wait_group 0;"
        )
    };
    let fence = |guard: &str| format!("{guard} fence.proxy.async.shared::cta;");
    let none = "nanosleep.u32 0;".to_string();
    let good = [(fence(""), none.clone()), (fence("@%p0"), none.clone()), (none.clone(), fence("@%p1"))];
    for (before, behind) in good.into_iter().chain([(none.clone(), fence(""))]) {
        let ran = Kernel { threads: 64, ..kernel(&body(&before, &behind)) }.clean();
        assert_eq!(ran.input[..4], [7, 0, 7, 0]);
    }
    // The reader's before the write is known to it, the writer's behind, another thread's, or none.
    let bad = [(fence("@%p1"), none.clone()), (fence("@%p2"), none.clone()), (none.clone(), fence("@%p2"))];
    for (before, behind) in bad.into_iter().chain([(none.clone(), none)]) {
        let fault = Kernel { threads: 64, ..kernel(&body(&before, &behind)) }.finds(0, 33, "/* copy */");
        assert!(matches!(fault, Fault::NoProxyFence { .. }), "{before} {behind}: {fault}");
    }
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    for (body, words) in [
        ("fence;", "no such fence"),
        ("fence.sc;", "no such fence"),
        ("fence.gl;", "no such fence"),
        ("fence.sc.gpu.cta;", "no such fence"),
        ("fence.acq_rel.proxy.async;", "no such fence"),
        ("fence.proxy.async.const;", "no such fence"),
        ("fence.proxy.async.shared;", "no such fence"),
        ("fence.proxy.tensormap;", "no such fence"),
        ("fence.proxy.tensormap::generic.acq_rel.gpu [%d0], 128;", "no such fence"),
        ("fence.proxy.tensormap::generic.release.gpu [%d0], 128;", "expected 0 to 0 operands"),
        ("fence.proxy.tensormap::generic.acquire.gpu;", "expected 2 to 2 operands"),
        ("fence.proxy.tensormap::generic.acquire.gpu [%d0], 64;", "the size is 128"),
        ("fence.proxy.tensormap::generic.acquire.gpu [%d0], %r2;", "the size is 128"),
        ("fence.mbarrier_init.release.cta;", "no such fence"),
        ("fence.mbarrier_init.acquire.cluster;", "no such fence"),
        ("fence.acquire.sync_restrict::shared::cta.cluster;", "no such fence"),
        ("fence.release.sync_restrict::shared::cta.gpu;", "no such fence"),
        ("membar.cluster;", "no such fence"),
        ("membar.gl.cta;", "no such fence"),
        ("membar.proxy.async.global;", "no such fence"),
        ("fence.sc.gpu 1;", "expected 0 to 0 operands"),
    ] {
        let error = kernel(body).refusal();
        let name = body.split([' ', ';']).next().unwrap();
        assert!(error.contains("line 20: ") && error.contains(&format!("`{name}`")), "{body}: {error}");
        assert!(error.contains(words), "{body}: {error}");
    }
}
