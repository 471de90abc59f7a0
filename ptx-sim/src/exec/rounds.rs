//! The blocks of a cluster on one core: their warps in turns, until all have exited or none can go on.

use std::collections::{BTreeMap, HashMap};

use super::block::Block;
use super::cluster::Cluster;
use super::deadlock::deadlock;
use super::exit::Orphan;
use super::job::Job;
use super::lanes::{LANES, lanes_of};
use super::ledger::Ledger;
use super::peers::{Seat, Woken};
use super::pool::Pool;
use super::registers::Registers;
use super::stall::{Prospect, Round, Stall};
use super::turn::{Failure, Stop, take_turn};
use super::warp::Warp;
use crate::fault::{Fault, Finding};
use crate::memory::Memory;

/// Instructions a warp may issue before the next one has its turn. Small enough that a warp polling another makes
/// progress, large enough that turns cost nothing.
const TURN: u64 = 4096;

/// Runs the blocks of a cluster to their end.
///
/// It ends early and without a finding if it waits for another cluster that has failed.
pub(super) fn run_cluster(
    job: &Job,
    cluster: u64,
    ledger: &mut Ledger,
    pool: &mut Pool,
    seat: &Seat,
) -> Result<(), Box<Finding>> {
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
    run_rounds(job, &mut cluster, &mut all, ledger, seat)?;
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
    seat: &Seat,
) -> Result<(), Box<Finding>> {
    let (mut idle_rounds, mut stall) = (0, Stall::default());
    let memory = job.grid.memory;
    loop {
        let mut progress = false;
        let mut running = false;
        let (mut busy, mut waits) = (false, false);
        let (mut issued, mut most, mut busiest) = (0, 0, 0);
        let watched = cluster.is_watched();
        for (index, (rank, warp)) in all.iter_mut().enumerate() {
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
            waits |= warp.groups.iter().any(|group| group.waiting && !group.yields);
            let steps = warp.steps - before;
            issued += steps;
            if steps > most {
                (most, busiest) = (steps, index);
            }
        }
        if !running {
            blame(job, cluster, ledger, cluster.begun_too_late());
            for block in &cluster.blocks {
                if let Some((change, warp)) = block.registers.left_out() {
                    let why = format!("setmaxnreg: warp {warp} of the warpgroup has exited without executing it");
                    ledger.find(Fault::Trap(why), block.index, warp * LANES, change.at);
                }
            }
            let landed = cluster.land_all(memory);
            seat.peers.change(memory);
            return landed.map_err(|fault| refuse(job, cluster, fault));
        }
        let noticed = std::mem::take(&mut cluster.noticed);
        let changed = noticed.stirred || if watched { noticed.altered } else { noticed.wrote };
        let stirred = changed || noticed.met && !watched;
        if changed {
            seat.peers.change(memory);
        }
        // The first arrivals of a round change what others wait for, so one round without progress proves nothing. And
        // where all wait, waits with a time limit end: their loops may have something else to do.
        idle_rounds = if progress { 0 } else { idle_rounds + 1 };
        cluster.impatient &= !stirred;
        let idle = idle_rounds == 2 && std::mem::replace(&mut cluster.impatient, true);
        if idle_rounds == 2 {
            idle_rounds = 0;
        }
        if idle {
            return Err(Box::new(deadlock(job, cluster, all, "")));
        }
        let round = Round { noticed, stirred, busy, waits, issued, busiest };
        match stall.round(job, cluster, all, round) {
            Prospect::Open => {}
            Prospect::Eternity => return Err(Box::new(deadlock(job, cluster, all, ""))),
            // What may happen at any time happens now: waits with a time limit end, and what is in flight lands.
            Prospect::Circles(_) if !std::mem::replace(&mut cluster.impatient, true) => stall.restart(cluster),
            Prospect::Circles(changes) => {
                let landed = land(cluster, memory).map_err(|fault| refuse(job, cluster, fault))?;
                match changes {
                    _ if landed => stall.give_up(cluster, all),
                    None => return Err(Box::new(deadlock(job, cluster, all, ""))),
                    Some(changes) => match seat.sleep(memory, changes) {
                        Woken::Changed => stall.restart(cluster),
                        Woken::Unclear => stall.give_up(cluster, all),
                        Woken::Abandoned => return Ok(()),
                        Woken::Never { unbegun } => {
                            let others = match unbegun {
                                0 => "; no other block of the grid is left that could change what they look at".into(),
                                _ => format!(
                                    "; no other block that runs will change what they look at, and {unbegun} of the \
                                     grid's clusters have not begun, which find no room beside them"
                                ),
                            };
                            return Err(Box::new(deadlock(job, cluster, all, &others)));
                        }
                    },
                }
            }
        }
    }
}

/// Performs everything that is in flight and that no arrival of the warps themselves has to wait for. Returns whether
/// there was anything.
fn land(cluster: &mut Cluster, memory: &Memory) -> Result<bool, Fault> {
    let flies = !cluster.flights.is_empty();
    cluster.land_all(memory)?;
    Ok(cluster.land_copies()? || flies)
}

/// A fault that no thread is to blame for.
fn refuse(job: &Job, cluster: &Cluster, fault: Fault) -> Box<Finding> {
    Box::new(job.finding(fault, cluster.blocks[0].index, 0, (job.kernel, 0), 1))
}

/// Notes accesses to shared memory that may come behind the end of its block.
fn blame(job: &Job, cluster: &Cluster, ledger: &mut Ledger, orphans: Vec<Orphan>) {
    if job.grid.checked {
        for Orphan { fault, rank, thread, line } in orphans {
            ledger.find(fault, cluster.blocks[rank].index, thread, job.place(line));
        }
    }
}
