/**
 * How long `inspect` takes for a file of rows, and EPLB for a model: rows of 48 layers × top 8 of 128 experts as u8,
 * and loads of 61 layers × 256 experts onto 320 slots. `INSPECT_MB` sets the size of the file, 1,000 by default.
 */

import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eplb } from '../src/analysis/placement/eplb.ts';
import { Inspection } from '../src/analysis/inspection.ts';
import { openRows } from '../src/rows/files/open-rows.ts';
import { npyHeader } from '../src/rows/forms/npy.ts';
import { random } from '../src/workload/random.ts';

const LAYERS = 48;
const TOP_K = 8;
const EXPERTS = 128;
/** Rows that are drawn once and written again and again. */
const DRAWN = 5000;

function drawnRows(): Uint8Array {
  const next = random(1, 'rows');
  const rows = new Uint8Array(DRAWN * LAYERS * TOP_K);
  for (let at = 0; at < rows.length; at += TOP_K) {
    const chosen = new Set<number>();
    while (chosen.size < TOP_K) chosen.add(next.below(EXPERTS));
    rows.set([...chosen], at);
  }
  return rows;
}

function writeRows(path: string, bytes: number): void {
  const rows = drawnRows();
  const numRows = Math.floor(bytes / (LAYERS * TOP_K));
  const file = openSync(path, 'w');
  writeSync(file, npyHeader('|u1', [numRows, LAYERS, TOP_K]));
  for (let row = 0; row < numRows; row += DRAWN) {
    writeSync(file, rows.subarray(0, Math.min(DRAWN, numRows - row) * LAYERS * TOP_K));
  }
  closeSync(file);
}

async function inspectOnce(path: string, sampleRows: number): Promise<string> {
  const cpu = process.cpuUsage();
  const started = performance.now();
  const { source } = await openRows([path], { numExperts: EXPERTS });
  const options = { sampleRows, numRanks: null, eplb: null, windowSteps: 16 };
  const inspection = new Inspection(source, null, options);
  for await (const batch of source.batches()) inspection.add(batch);
  inspection.end();
  const seconds = (performance.now() - started) / 1e3;
  const { user, system } = process.cpuUsage(cpu);
  const memory = process.memoryUsage.rss() / 2 ** 20;
  return `${seconds.toFixed(2)} s (${((user + system) / 1e6).toFixed(2)} s of processor), ${memory.toFixed(0)} MiB`;
}

export async function run(): Promise<void> {
  const megabytes = Number(process.env['INSPECT_MB'] ?? 1000);
  const folder = mkdtempSync(join(tmpdir(), 'inspect-bench-'));
  try {
    const path = join(folder, 'rows.npy');
    writeRows(path, megabytes * 1e6);
    console.log(`${megabytes} MB of u8 rows, counts, balance, entropy, overlap, faults: ${await inspectOnce(path, 0)}`);
    console.log(`with caches, affinity and pairs of the first 10,000 rows: ${await inspectOnce(path, 10_000)}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }

  const next = random(2, 'loads');
  const loads = Array.from({ length: 61 }, () =>
    Array.from({ length: 256 }, () => Math.floor(1e5 * next.nextFloat() ** 3)),
  );
  for (const [name, numGroups, numNodes, numGpus] of [
    ['hierarchical, 8 groups, 4 nodes, 32 GPUs', 8, 4, 32],
    ['global, 320 GPUs', 1, 1, 320],
    ['global, 32 GPUs', 1, 1, 32],
  ] as const) {
    const times = Array.from({ length: 11 }, () => {
      const started = performance.now();
      eplb(loads, { numReplicas: 320, numGroups, numNodes, numGpus });
      return performance.now() - started;
    });
    const [first] = times;
    const middle = times.toSorted((a, b) => a - b)[5]!;
    console.log(`EPLB 61 × 256 × 320, ${name}: first ${first!.toFixed(1)} ms, median ${middle.toFixed(1)} ms`);
  }
}
