module payoutd/go

go 1.26
