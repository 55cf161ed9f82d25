import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

/**
 * What happens to a connection at the next bytes from its client that contain a marker.
 * - `cut-before`: it breaks, and the server never sees them;
 * - `cut-after`: it breaks as soon as they have been handed to the server;
 * - `swallow-answer`: the server answers, the answer is lost, and only then it breaks.
 */
export type LinkFault = 'cut-before' | 'cut-after' | 'swallow-answer';

/** Stands between a client and PostgreSQL on a port that stays, and breaks the connection where a test says so. */
export interface TcpProxy {
  /** The target's URL with this proxy's address in it. */
  url: string;
  /** Where new connections go from now on: a server that was started again has another port. */
  target(url: string): void;
  breakNext(marker: string, fault: LinkFault): void;
  /** Whether the fault asked for last has happened. */
  readonly broken: boolean;
  /** Refuses new connections until `mend`. */
  refuse(): void;
  /** Breaks all connections, and refuses new ones until `mend`. */
  sever(): void;
  mend(): void;
  close(): Promise<void>;
}

export async function startTcpProxy(targetUrl: string): Promise<TcpProxy> {
  let target = new URL(targetUrl);
  let severed = false;
  let armed: { marker: string; fault: LinkFault } | undefined;
  const links = new Set<() => void>();

  const server = createServer((client) => {
    if (severed) {
      client.resetAndDestroy();
      return;
    }
    const upstream = connect(Number(target.port), target.hostname);
    const cut = (): void => {
      links.delete(cut);
      client.destroy();
      upstream.destroy();
    };
    links.add(cut);
    for (const socket of [client, upstream]) {
      socket.setNoDelay(true);
      socket.on('error', cut);
      socket.on('close', cut);
    }
    let swallowing = false;
    forward(client, upstream, (bytes) => {
      if (armed === undefined || !bytes.includes(armed.marker)) return true;
      const { fault } = armed;
      armed = undefined;
      if (fault === 'cut-before') cut();
      else if (fault === 'swallow-answer') swallowing = true;
      else upstream.write(bytes, cut);
      return fault === 'swallow-answer';
    });
    forward(upstream, client, () => {
      if (swallowing) cut();
      return !swallowing;
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const url = new URL(targetUrl);
  url.hostname = '127.0.0.1';
  url.port = String((server.address() as AddressInfo).port);
  const cutAll = (): void => {
    for (const cut of links) cut();
  };
  return {
    url: url.href,
    target: (newUrl) => {
      target = new URL(newUrl);
    },
    breakNext: (marker, fault) => {
      armed = { marker, fault };
    },
    get broken() {
      return armed === undefined;
    },
    refuse: () => {
      severed = true;
    },
    sever: () => {
      severed = true;
      cutAll();
    },
    mend: () => {
      severed = false;
    },
    close: () => new Promise((resolve) => {
      server.close(() => resolve());
      cutAll();
    }),
  };
}

function forward(from: Socket, to: Socket, mayPass: (bytes: Buffer) => boolean): void {
  from.on('data', (bytes: Buffer) => {
    if (!mayPass(bytes) || to.write(bytes)) return;
    from.pause();
    to.once('drain', () => from.resume());
  });
}
