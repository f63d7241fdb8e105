/** The signals that end a server, and stop a campaign. */

/** Resolves with the next SIGTERM or SIGINT, which then does not end the process. */
export function nextSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    const heard = (signal: NodeJS.Signals): void => {
      process.off('SIGTERM', heard);
      process.off('SIGINT', heard);
      resolve(signal);
    };
    process.on('SIGTERM', heard);
    process.on('SIGINT', heard);
  });
}

/** Runs `work`, which a first SIGTERM or SIGINT asks to end. A second one ends the process. */
export async function untilSignal(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const controller = new AbortController();
  const heard = (): void => {
    forget();
    controller.abort();
  };
  const forget = (): void => {
    process.off('SIGTERM', heard);
    process.off('SIGINT', heard);
  };
  process.on('SIGTERM', heard);
  process.on('SIGINT', heard);
  try {
    await work(controller.signal);
  } finally {
    forget();
  }
}
