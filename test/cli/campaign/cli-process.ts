/** A command of the command line in a process of its own, which a test talks to with signals. */

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, vi } from 'vitest';

const MAIN = fileURLToPath(new URL('../../../src/cli/main.ts', import.meta.url));

const running: Set<ChildProcess> = new Set();

export class CliProcess {
  stdout = '';
  stderr = '';
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown[]>;

  /** `main`: the entry of another checkout. */
  constructor(args: readonly string[], { cwd, main = MAIN }: Readonly<{ cwd: string; main?: string }>) {
    this.#child = spawn(process.execPath, [main, ...args], { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(this.#child);
    this.#child.stdout!.on('data', (text) => (this.stdout += String(text)));
    this.#child.stderr!.on('data', (text) => (this.stderr += String(text)));
    // After the last of what it wrote.
    this.#ended = once(this.#child, 'close');
    void this.#ended.then(() => running.delete(this.#child));
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Resolves with the exit code; null: a signal ended it. */
  async ended(): Promise<number | null> {
    const [code] = await this.#ended;
    return code as number | null;
  }

  /** Waits until the process has said something on stderr. */
  async says(text: string, timeout = 60_000): Promise<void> {
    await vi.waitFor(() => expect(this.stderr).toContain(text), { timeout, interval: 20 });
  }
}

/** Ends what a failed test has left behind. */
export function endProcesses(): void {
  for (const child of running) child.kill('SIGKILL');
}
