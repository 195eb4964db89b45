// What preact.js exports, for the checker of types; htm makes elements of text, of which it knows nothing.
export const html: (strings: TemplateStringsArray, ...values: unknown[]) => any;
export const h: (type: unknown, props: object | null, ...children: unknown[]) => any;
export function render(tree: any, place: Element): void;
export class Component<Props = any, State = any> {
  constructor(props: Props);
  props: Props;
  state: State;
  setState(changes: Partial<State>, done?: () => void): void;
  forceUpdate(): void;
}
export function createContext<T>(value: T): { Provider: any };
export function useContext<T>(context: { Provider: any }): T;
export function useState<T>(first: T | (() => T)): [T, (next: T | ((before: T) => T)) => void];
export function useReducer<S, A>(reduce: (state: S, action: A) => S, first: S): [S, (action: A) => void];
export function useEffect(run: () => void | (() => void), inputs?: readonly unknown[]): void;
export function useLayoutEffect(run: () => void | (() => void), inputs?: readonly unknown[]): void;
export function useRef<T = any>(first: T): { current: T };
export function useMemo<T>(make: () => T, inputs: readonly unknown[]): T;
export function useCallback<F>(callback: F, inputs: readonly unknown[]): F;
export function useErrorBoundary(tell?: (error: any) => void): [any, () => void];
