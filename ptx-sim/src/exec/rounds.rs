//! The blocks of a cluster on one core: their warps in turns, until all have exited or none can go on.

use std::collections::{BTreeMap, HashMap};

use super::block::Block;
use super::cluster::Cluster;
use super::deadlock::deadlock;
use super::exit::Orphan;
use super::job::Job;
use super::lanes::{LANES, lanes_of};
use super::ledger::Ledger;
use super::pool::Pool;
use super::registers::Registers;
use super::stall::Stall;
use super::turn::{Failure, Stop, take_turn};
use super::warp::Warp;
use crate::fault::{Fault, Finding};

/// Instructions a warp may issue before the next one has its turn. Small enough that a warp polling another makes
/// progress, large enough that turns cost nothing.
const TURN: u64 = 4096;

/// Runs the blocks of a cluster to their end.
pub(super) fn run_cluster(job: &Job, cluster: u64, ledger: &mut Ledger, pool: &mut Pool) -> Result<(), Box<Finding>> {
    let (grid, code) = (job.grid, job.code());
    let (threads, warps) = (grid.threads(), grid.threads().div_ceil(LANES));
    let refuse = |fault, block, thread| Box::new(job.finding(fault, block, thread, (job.kernel, 0), 1));
    let make = |index| {
        let mut shared = pool.shared();
        let renewed = shared.renew(code.shared_bytes + grid.dynamic_shared, grid.checked);
        renewed.map_err(|fault| refuse(fault, index, 0))?;
        Ok(Block {
            index,
            shared,
            static_shared: code.shared_bytes,
            barriers: HashMap::new(),
            mbarriers: BTreeMap::new(),
            registers: Registers::new(code, threads),
            warpgroups: BTreeMap::new(),
            live: (0..warps).map(|warp| lanes_of(threads, warp)).collect(),
            visits: BTreeMap::new(),
            remembered: 0,
            closed: None,
        })
    };
    let blocks = grid.blocks_of(cluster).into_iter().map(make).collect::<Result<Vec<Block>, Box<Finding>>>()?;
    let mut cluster = Cluster::new(blocks, warps, grid.checked, grid.held_bytes);
    let mut all: Vec<(usize, Warp)> = Vec::new();
    for (rank, block) in cluster.blocks.iter().enumerate() {
        for index in 0..warps {
            let mut warp = Warp::new(index, lanes_of(threads, index), job.kernel, pool.frame());
            let entered = warp.enter(0, &code.frame, ledger);
            entered.map_err(|fault| refuse(fault, block.index, index * LANES))?;
            all.push((rank, warp));
        }
    }
    run_rounds(job, &mut cluster, &mut all, ledger)?;
    cluster.blocks.into_iter().for_each(|block| pool.give_shared(block.shared));
    all.into_iter().filter_map(|(_, warp)| warp.frames.into_iter().next()).for_each(|frame| pool.give_frame(frame));
    Ok(())
}

/// Runs warps in turns, until all have exited.
fn run_rounds(
    job: &Job,
    cluster: &mut Cluster,
    all: &mut [(usize, Warp)],
    ledger: &mut Ledger,
) -> Result<(), Box<Finding>> {
    let (mut idle_rounds, mut stall) = (0, Stall::default());
    loop {
        let mut progress = false;
        let mut running = false;
        let mut busy = false;
        for (rank, warp) in &mut *all {
            if warp.live == 0 {
                continue;
            }
            let before = warp.steps;
            let stop = take_turn(warp, job, cluster, *rank, ledger, TURN);
            let stop = stop.map_err(|Failure { fault, lane, at }| {
                Box::new(job.finding(fault, cluster.blocks[*rank].index, warp.index * LANES + lane, at, 1))
            })?;
            cluster.blocks[*rank].live[warp.index] = warp.live;
            let orphans = cluster.close(*rank);
            blame(job, cluster, ledger, orphans);
            running |= warp.live != 0;
            progress |= stop != Stop::Waiting || warp.steps > before;
            busy |= stop == Stop::TurnOver;
        }
        if !running {
            blame(job, cluster, ledger, cluster.begun_too_late());
            for block in &cluster.blocks {
                if let Some((change, warp)) = block.registers.left_out() {
                    let why = format!("setmaxnreg: warp {warp} of the warpgroup has exited without executing it");
                    ledger.find(Fault::Trap(why), block.index, warp * LANES, change.at);
                }
            }
            let landed = cluster.land_all(job.grid.memory);
            let refuse = |fault| job.finding(fault, cluster.blocks[0].index, 0, (job.kernel, 0), 1);
            return landed.map_err(|fault| Box::new(refuse(fault)));
        }
        let [stirred, polled, timed, looked] =
            [&mut cluster.stirred, &mut cluster.polled, &mut cluster.timed, &mut cluster.looked].map(std::mem::take);
        // The first arrivals of a round change what others wait for, so one round without progress proves nothing. And
        // where all wait, waits with a time limit end: their loops may have something else to do.
        idle_rounds = if progress { 0 } else { idle_rounds + 1 };
        cluster.impatient &= !stirred;
        let waits = idle_rounds == 2 && std::mem::replace(&mut cluster.impatient, true);
        if idle_rounds == 2 {
            idle_rounds = 0;
        }
        let polls = if polled && !stirred && !looked {
            stall.is_final(all.iter().map(|(_, warp)| warp), timed, busy)
        } else {
            stall.end();
            false
        };
        if waits || polls {
            return Err(Box::new(deadlock(job, cluster, all)));
        }
    }
}

/// Notes accesses to shared memory that may come behind the end of its block.
fn blame(job: &Job, cluster: &Cluster, ledger: &mut Ledger, orphans: Vec<Orphan>) {
    if job.grid.checked {
        for Orphan { fault, rank, thread, line } in orphans {
            ledger.find(fault, cluster.blocks[rank].index, thread, job.place(line));
        }
    }
}
