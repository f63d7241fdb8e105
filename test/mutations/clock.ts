/** What makes the time of the clock device believable and keeps it apart from a GPU's; how a device is waited for. */

import type { SourceMutation } from './source-mutation.ts';

const room = 'src/kernels/device';
const clockTest = { test: 'test/kernels/queue-clock.unit.test.ts' };
const choiceTest = { test: 'test/cli/bench-device.unit.test.ts' };

export const clockMutations: readonly SourceMutation[] = [
  {
    name: 'clock-steps-overlap',
    defect: 'a step begins when it is handed in, beside the one ahead of it',
    file: `${room}/clock/queue-clock.ts`,
    find: 'Math.max(this.#freeAt, submittedAt) + passMs',
    replace: 'submittedAt + passMs',
    killedBy: clockTest,
  },
  {
    name: 'clock-copies-for-nothing',
    defect: 'rows leave the device in no time',
    file: `${room}/clock/queue-clock.ts`,
    find: 'const copyMs = readbackBytes / (copyGBPerS * 1e6);',
    replace: 'const copyMs = readbackBytes / (copyGBPerS * 1e9);',
    killedBy: clockTest,
  },
  {
    name: 'clock-overruns-not-counted',
    defect: 'a deadline that was missed counts as kept',
    file: `${room}/clock/queue-clock.ts`,
    find: 'overrun: overrun + (isOverrun ? 1 : 0),',
    replace: 'overrun,',
    killedBy: clockTest,
  },
  {
    name: 'clock-read-too-early',
    defect: 'a read ends at the last tick of a timer before its deadline',
    file: `${room}/clock/clock-device.ts`,
    find: '      this.#sleepUntil(deadline);\n      this.#clock',
    replace: '      this.#clock',
    killedBy: clockTest,
  },
  {
    name: 'clock-blocking-read-lets-the-thread-go-on',
    defect: 'a design that blocks costs no more than one that does not',
    file: `${room}/clock/clock-device.ts`,
    find: 'if (blocksThread) this.#sleepUntil(deadline);',
    replace: 'void blocksThread;',
    killedBy: clockTest,
  },
  {
    name: 'clock-pass-not-announced',
    defect: 'the forward pass does not say that it begins, and takes no time',
    file: 'src/kernels/model/forward-pass.ts',
    find: 'commands.beginPass?.(ownTokens);',
    replace: '',
    killedBy: clockTest,
  },
  {
    name: 'bench-auto-takes-software-for-a-gpu',
    defect: 'without a GPU, figures are of the software adapter',
    file: 'src/cli/bench/bench-device.ts',
    find: 'const isGpu = found !== undefined && !found.isSoftware;',
    replace: 'const isGpu = found !== undefined;',
    killedBy: choiceTest,
  },
  {
    name: 'bench-auto-without-shaders',
    defect: 'without a GPU, no shader runs at all',
    file: 'src/cli/bench/bench-device.ts',
    find: 'checksShaders: found !== undefined };',
    replace: 'checksShaders: false };',
    killedBy: choiceTest,
  },
  {
    name: 'device-never-rests',
    defect: 'a thread that waits for its device burns a core, and fills its heap with what it has to finalize',
    file: `${room}/polling.ts`,
    find: 'if (rest > 0) Atomics.wait(asleep, 0, 0, rest);',
    replace: '',
    killedBy: { test: 'test/kernels/polling.unit.test.ts' },
  },
  {
    name: 'device-rests-at-once',
    defect: 'a step of a tenth of a millisecond is looked for after twice that time',
    file: `${room}/look-times.ts`,
    find: 'if (now <= this.#busyUntil) return 0;',
    replace: '',
    killedBy: { test: 'test/kernels/polling.unit.test.ts' },
  },
  {
    name: 'device-oversleeps',
    defect: 'a thread sleeps through the end of a read that took as long as the ones before it',
    file: `${room}/look-times.ts`,
    find: 'const SURE_SHARE = 0.8;',
    replace: 'const SURE_SHARE = 1.5;',
    killedBy: { test: 'test/kernels/polling.unit.test.ts' },
  },
];
