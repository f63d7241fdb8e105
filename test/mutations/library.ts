import type { SourceMutation } from './source-mutation.ts';

const readRows = { test: 'test/rows/read-rows.unit.test.ts' };
const compareRows = { test: 'test/rows/compare-rows.unit.test.ts' };
const gpuRouter = { test: 'test/entries/gpu-router.integration.test.ts' };
const browser = { test: 'test/entries/browser.unit.test.ts' };

export const libraryMutations: readonly SourceMutation[] = [
  {
    name: 'rows-of-ones-from-position-0',
    defect: 'undeclared missing rows are counted from position 0, wherever the rows start',
    file: 'src/rows/read-rows.ts',
    find: 'else ranges.push([start + row, start + row + 1]);',
    replace: 'else ranges.push([row, row + 1]);',
    killedBy: readRows,
  },
  {
    name: 'base64-passes-over',
    defect: 'characters that are not base64 are passed over, and the rows behind them shift',
    file: 'src/rows/base64.ts',
    find: 'return bytes.length === (text.length / 4) * 3 - padding ? bytes : null;',
    replace: 'return padding < 3 ? bytes : null;',
    killedBy: readRows,
  },
  {
    name: 'comparison-tells-the-last',
    defect: 'a comparison tells the last difference for the first',
    file: 'src/rows/compare-rows.ts',
    find: 'first ??= ',
    replace: 'first = ',
    killedBy: compareRows,
  },
  {
    name: 'comparison-forgets-what-is-missing',
    defect: 'a comparison takes missing rows of one side for rows that both have',
    file: 'src/rows/compare-rows.ts',
    find: 'for (const [from, to] of present(others)) has.add(from, to);',
    replace: 'has.add(others.start, others.start + others.count);',
    killedBy: compareRows,
  },
  {
    name: 'router-of-one-row',
    defect: 'a router on the caller’s buffers routes the first row only',
    file: 'src/kernels/gpu-router.ts',
    find: 'routerParams(numTokens, this.#bias)',
    replace: 'routerParams(1, this.#bias)',
    killedBy: gpuRouter,
  },
  {
    name: 'router-destroys-the-device',
    defect: 'the end of a router destroys the device, which is the caller’s',
    file: 'src/kernels/device/webgpu-device.ts',
    find: 'if (this.#adapter === null) return;',
    replace: 'if (this.#adapter === null) return this.#gpu.destroy();',
    killedBy: gpuRouter,
  },
  {
    name: 'router-hears-others-errors',
    defect: 'an error of the caller’s own on the device ends the router',
    file: 'src/kernels/device/webgpu-device.ts',
    find: 'if (adapter !== null) gpu.addEventListener',
    replace: 'gpu.addEventListener',
    killedBy: gpuRouter,
  },
  {
    name: 'storm-with-a-clock',
    defect: 'the simulator asks for the time, which a bare context does not have',
    file: 'src/sim/run-scenario.ts',
    find: 'const marks = new Set<Mark>();',
    replace: 'const marks = new Set<Mark>();\n  performance.now();',
    killedBy: browser,
  },
];
