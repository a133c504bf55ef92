//go:build amends_exact

package simulation

import _ "unsafe" // for go:linkname

// exact says that the runtime follows the seed: see the command exact.
const exact = true

//go:linkname simulationSeed runtime.simulationSeed
var simulationSeed uint64

//go:linkname simulationNumbers runtime.simulationNumbers
var simulationNumbers uint64

//go:linkname simulationOrder runtime.simulationOrder
var simulationOrder uint64

// seedRuntime seeds the runtime; 0 leaves it alone.
func seedRuntime(seed uint64) { simulationSeed, simulationNumbers, simulationOrder = seed, 0, 0 }
