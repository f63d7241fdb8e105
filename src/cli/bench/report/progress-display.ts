/** How far a bench has got, on stderr: a bar where somebody watches, otherwise a line now and then. */

import { SingleBar } from 'cli-progress';
import type { Progress } from '../pair-schedule.ts';

export type ProgressDisplay = Readonly<{ update: (progress: Progress, what: string) => void; stop: () => void }>;

export function progressDisplay(): ProgressDisplay {
  if (!process.stderr.isTTY) return { update: progressLog(), stop: () => {} };
  const bar = new SingleBar({ format: '{bar} {text}', stream: process.stderr, hideCursor: true });
  let isStarted = false;
  return {
    update: (progress, what) => {
      const text = progressText(progress, what);
      if (!isStarted) bar.start(progress.total, progress.done, { text });
      isStarted = true;
      bar.update(progress.done, { text });
    },
    stop: () => bar.stop(),
  };
}

export async function withProgress<T>(work: (progress: ProgressDisplay) => Promise<T>): Promise<T> {
  const progress = progressDisplay();
  try {
    return await work(progress);
  } finally {
    progress.stop();
  }
}

/** A line at the start, and one for each tenth. */
function progressLog(): (progress: Progress, what: string) => void {
  let latest = -1;
  return (progress, what) => {
    const tenth = Math.floor((10 * progress.done) / progress.total);
    if (tenth > latest) console.error(progressText(progress, what));
    latest = Math.max(latest, tenth);
  };
}

function progressText({ done, total, unit, detail }: Progress, what: string): string {
  return `${unit} ${done} of ${total}: ${what}${detail}`;
}
