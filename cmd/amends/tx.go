package main

import "github.com/spf13/cobra"

func newTx() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "tx",
		Short: "List, show and watch transactions, and act on them",
	})
	cmd.AddGroup(&cobra.Group{ID: "look", Title: "Look:"}, &cobra.Group{ID: "act", Title: "Act, with a reason:"})
	for _, c := range []*cobra.Command{newTxList(), newTxGet(), newTxEvents(), newTxWatch()} {
		c.GroupID = "look"
		cmd.AddCommand(c)
	}
	for _, v := range verbs() {
		c := v.command()
		c.GroupID = "act"
		cmd.AddCommand(c)
	}
	return cmd
}
