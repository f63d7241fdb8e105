/** How far a campaign has got, on a terminal; elsewhere nothing. */

import { SingleBar } from 'cli-progress';

export type ProgressBar = Readonly<{
  add: (scenarios: number) => void;
  /** Shows a few words behind the bar. */
  note: (text: string) => void;
  stop: () => void;
}>;

const NO_BAR: ProgressBar = { add: () => undefined, note: () => undefined, stop: () => undefined };

/** A bar of `total` scenarios, of which some were `done` before. It shows when there is something to show. */
export function progressBar({ total, done }: Readonly<{ total: number; done: number }>): ProgressBar {
  if (!process.stderr.isTTY) return NO_BAR;
  const format = '{bar} {value}/{total} scenarios, {rate}/s{note}';
  const bar = new SingleBar({ format, stream: process.stderr, clearOnComplete: true });
  const startedAt = performance.now();
  let numDone = done;
  let note = '';
  const show = (): void => {
    const rate = Math.round((1000 * (numDone - done)) / (performance.now() - startedAt));
    if (bar.isActive) bar.update(numDone, { rate, note });
    else bar.start(total, numDone, { rate, note });
  };
  return {
    add: (scenarios) => {
      numDone += scenarios;
      show();
    },
    note: (text) => {
      note = `, ${text}`;
      show();
    },
    stop: () => bar.stop(),
  };
}
