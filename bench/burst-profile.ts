/**
 * A preload (`--import`) that prints where the time of a served run goes, on the engine's thread and on the worker's:
 * ms in sum and at most, per run. It wraps methods; the engine knows nothing of it.
 */

import { writeSync } from 'node:fs';
import { PerformanceObserver } from 'node:perf_hooks';
import { isMainThread } from 'node:worker_threads';

type Sum = { ms: number; max: number; count: number };
type Method = (this: unknown, ...values: unknown[]) => unknown;

const sums = new Map<string, Sum>();
const timeline: string[] = [];
let origin = 0;

function add(name: string, ms: number): void {
  const sum = sums.get(name) ?? { ms: 0, max: 0, count: 0 };
  sums.set(name, sum);
  sum.ms += ms;
  sum.max = Math.max(sum.max, ms);
  sum.count += 1;
}

function time(prototype: object, method: string): void {
  const methods = prototype as Record<string, Method>;
  const inner = methods[method]!;
  methods[method] = function (...values) {
    const from = performance.now();
    const result = inner.apply(this, values);
    add(method, performance.now() - from);
    return result;
  };
}

function timeAsync(prototype: object, method: string): void {
  const methods = prototype as Record<string, Method>;
  const inner = methods[method]!;
  methods[method] = async function (...values) {
    const from = performance.now();
    const result = await inner.apply(this, values);
    add(`${method} (await)`, performance.now() - from);
    if (method === 'execute' && isMainThread && timeline.length < 400) {
      const { totalNumScheduledTokens, numRequests } = values[0] as {
        totalNumScheduledTokens: number;
        numRequests: number;
      };
      timeline.push(
        `${totalNumScheduledTokens}t/${numRequests}r ${(from - origin).toFixed(2)}-${(performance.now() - origin).toFixed(2)}`,
      );
    }
    return result;
  };
}

function report(what: string): void {
  const lines = [...sums].map(
    ([name, { ms, max, count }]) =>
      `  ${name.padEnd(24)} ${ms.toFixed(2).padStart(9)} ms, longest ${max.toFixed(2)}, ${count} times`,
  );
  writeSync(2, `${what}\n${lines.join('\n')}\n`);
  sums.clear();
}

new PerformanceObserver((list) => {
  for (const entry of list.getEntries())
    add(`gc ${(entry as unknown as { detail: { kind: number } }).detail.kind}`, entry.duration);
}).observe({ entryTypes: ['gc'] });

if (isMainThread) {
  const { PrefixRowsEngineHalf } = await import('../src/capture/deltas/prefix-rows/engine-half.ts');
  const { EngineCore } = await import('../src/engine/engine-core.ts');
  const { LiveEngine } = await import('../src/host/live-engine.ts');
  const { ThreadExecutor } = await import('../src/worker/thread/thread-executor.ts');
  for (const method of ['beginStep', 'finishStep']) time(EngineCore.prototype, method);
  for (const method of ['onScheduled', 'onStepOutput', 'onBlocksCached', 'take'])
    time(PrefixRowsEngineHalf.prototype, method);
  timeAsync(ThreadExecutor.prototype, 'execute');
  const methods = LiveEngine.prototype as unknown as Record<string, Method>;
  const ended = methods['ended']!;
  const stats = methods['stats']!;
  methods['ended'] = function (...values) {
    sums.clear();
    timeline.length = 0;
    origin = performance.now();
    return ended.apply(this, values);
  };
  methods['stats'] = function (...values) {
    report(
      `engine thread, wall ${(performance.now() - origin).toFixed(1)} ms, rss ${(process.memoryUsage().rss / 1e6).toFixed(0)} MB, buffers ${(process.memoryUsage().arrayBuffers / 1e6).toFixed(0)} MB`,
    );
    if (process.env['TIMELINE'] !== undefined) writeSync(2, `  ${timeline.slice(0, 48).join(' · ')}\n`);
    return stats.apply(this, values);
  };
} else {
  const { DeltasWorkerHalf } = await import('../src/capture/deltas/worker-half.ts');
  const { WebGpuDevice } = await import('../src/kernels/device/webgpu-device.ts');
  const { ModelRunner } = await import('../src/worker/model-runner.ts');
  const { StepRunner } = await import('../src/worker/pipeline/step-runner.ts');
  for (const method of ['begin', 'submit', 'collect']) time(StepRunner.prototype, method);
  for (const [method, name] of [
    ['record', 'half.record'],
    ['collect', 'half.collect'],
  ] as const) {
    const methods = DeltasWorkerHalf.prototype as unknown as Record<string, Method>;
    const inner = methods[method]!;
    methods[method] = function (...values) {
      const from = performance.now();
      const result = inner.apply(this, values);
      add(name, performance.now() - from);
      return result;
    };
  }
  timeAsync(WebGpuDevice.prototype, 'read');
  time(WebGpuDevice.prototype, 'submit');
  const methods = ModelRunner.prototype as unknown as Record<string, Method>;
  const liveCounts = methods['liveCounts']!;
  methods['liveCounts'] = function (...values) {
    report('worker thread');
    return liveCounts.apply(this, values);
  };
}
