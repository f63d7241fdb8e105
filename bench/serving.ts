/**
 * The server under load: 64 concurrent streams, every one with rows, against a server in a process of its own. Reports
 * errors, throughput, the server's memory from a warm-up to the end, and its longest event-loop stall. `npm run bench
 * serving [seconds]`.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const STREAMS = 64;
const PROMPT_TOKENS = 200;
const OUTPUT_TOKENS = 100;
const WARM_UP_SHARE = 0.4;
const SAMPLE_MS = 1000;
const NUM_WINDOWS = 6;

/** Seconds of load, the warm-up included. */
const DEFAULT_SECONDS = 20;

type Totals = { answers: number; errors: number; tokens: number; bytes: number };

export async function run(): Promise<void> {
  const seconds = Number(process.argv[3] ?? DEFAULT_SECONDS);
  const bin = fileURLToPath(new URL('../bin/routed-experts.mjs', import.meta.url));
  const flags = ['--device', 'cpu', '--model', 'tiny', '--port', '0', '--log-level', 'error', '--num-blocks', '4097'];
  const child = spawn(process.execPath, [bin, 'serve', ...flags], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  const url = /http:\S+/.exec(line)![0];
  try {
    const totals: Totals = { answers: 0, errors: 0, tokens: 0, bytes: 0 };
    const startedAt = performance.now();
    const endAt = startedAt + seconds * 1e3;
    const streams = Promise.all(Array.from({ length: STREAMS }, (_, i) => streamUntil(endAt, url, i, totals)));
    const samples = await sampleUntil(endAt, url, child.pid!);
    await streams;
    const wallSeconds = (performance.now() - startedAt) / 1e3;
    const warm = samples.slice(Math.floor(samples.length * WARM_UP_SHARE));
    const window = Math.ceil(warm.length / NUM_WINDOWS);
    const memory = Array.from({ length: NUM_WINDOWS }, (_, i) =>
      median(warm.slice(i * window, (i + 1) * window).map((sample) => sample.residentMiB)).toFixed(0),
    );
    const stalls = warm.map((sample) => sample.stallMs);
    console.log(
      `${STREAMS} streams for ${wallSeconds.toFixed(0)} s: ${totals.answers} answers, ${totals.errors} errors`,
    );
    console.log(
      `${Math.round(totals.tokens / wallSeconds)} tokens/s, ${(totals.bytes / 2 ** 20 / wallSeconds).toFixed(1)} MiB/s`,
    );
    console.log(`resident memory after the warm-up: medians of ${NUM_WINDOWS} windows ${memory.join(', ')} MiB`);
    const [middle, worst] = [median(stalls), Math.max(...stalls)].map((ms) => ms.toFixed(1));
    console.log(
      `longest stall of the server's event loop: ${middle} ms in the median second, ${worst} ms in the worst`,
    );
  } finally {
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
}

/** One client: asks, reads to the end, asks again. */
async function streamUntil(endAt: number, url: string, client: number, totals: Totals): Promise<void> {
  for (let turn = 0; performance.now() < endAt; turn++) {
    const prompt = Array.from({ length: PROMPT_TOKENS }, (_, i) => (client * 7 + turn * 13 + i * i) % 97);
    const response = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        prompt,
        max_tokens: OUTPUT_TOKENS,
        ignore_eos: true,
        stream: true,
        vllm_xargs: { return_routed_experts: true },
      }),
    });
    const text = await response.text();
    const isWhole = response.ok && text.includes('"routed_experts":"') && text.endsWith('data: [DONE]\n\n');
    totals.answers++;
    totals.errors += isWhole ? 0 : 1;
    totals.tokens += OUTPUT_TOKENS;
    totals.bytes += text.length;
  }
}

type Sample = Readonly<{ residentMiB: number; stallMs: number }>;

async function sampleUntil(endAt: number, url: string, pid: number): Promise<Sample[]> {
  const samples: Sample[] = [];
  while (performance.now() < endAt) {
    await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
    const metrics = await (await fetch(`${url}/metrics`)).text();
    const stall = /^routed_experts:event_loop_stall_seconds\{.*\} (\S+)$/m.exec(metrics);
    samples.push({ residentMiB: residentMiB(pid), stallMs: Number(stall?.[1] ?? Number.NaN) * 1e3 });
  }
  return samples;
}

/** Of another process; only Linux tells. */
function residentMiB(pid: number): number {
  try {
    const kiB = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return Number(kiB?.[1] ?? Number.NaN) / 1024;
  } catch {
    return Number.NaN;
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
